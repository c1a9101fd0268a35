"""Networks that scorers and training share. Each module imports PyTorch, so import it where the network is used."""

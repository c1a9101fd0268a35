"""The four stages of training, one file each, and what they are built from."""

"""Training one model in several processes: groups, gradients, sharding."""

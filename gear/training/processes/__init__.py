"""Several processes that train one model: groups, gradients, sharding."""

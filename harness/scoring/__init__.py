"""What runs inside a step: the `score` command, feature stages, request sets, and the networks that scorers share."""

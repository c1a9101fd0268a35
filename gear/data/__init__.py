"""Training data: where images come from, their exact transforms, and the order they are seen in."""

"""Where and when steps run: on this machine (`here`)."""

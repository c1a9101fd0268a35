"""What GEAR brings to the harness: its generators, and the demo."""

"""What GEAR adds to the harness: its generators, and the demo."""

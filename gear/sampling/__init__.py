"""Sampling: AR tokens, their pixels, and a whole request set turned into a sample set."""

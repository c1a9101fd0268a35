"""Frozen networks whose features are measured, not trained."""

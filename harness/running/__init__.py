"""Doing what a plan says: preview, execution, and how failures are told."""

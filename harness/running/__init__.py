"""Carrying out a plan: preview, execution, and how failures are reported."""

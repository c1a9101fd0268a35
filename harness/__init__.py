"""The harness: plans, runs, records and compares benchmarks of image generators. Imports neither torch nor gear."""

__version__ = "0.1.0"

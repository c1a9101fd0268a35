"""The arithmetic the scorers share: arrays in, numbers out. Imports NumPy and SciPy and nothing else.

Shape legend of this package: N images, D feature width, C classes or channels, H and W pixels.
"""

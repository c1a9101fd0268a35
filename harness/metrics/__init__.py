"""The arithmetic the scorers share: arrays in, numbers out. Imports NumPy; SciPy inside the functions that need it,
so that a command line starts fast; threadpoolctl where BLAS must leave the cores to our own threads (`frechet`).

Shape legend of this package: N images, D feature width, C classes or channels, H and W pixels.
"""

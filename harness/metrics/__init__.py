"""The arithmetic the scorers share: arrays in, numbers out. Imports NumPy and SciPy; threadpoolctl where BLAS
must leave the cores to threads of ours (`frechet`, `exact_manifold`), and numba for distances of single pairs
(`exact_manifold`).

Shape legend of this package: N images, D feature width, C classes or channels, H and W pixels.
"""

"""The Inception graph as a scorer needs it, whichever library evaluates it, and the names of its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from benchmarks.adm.interface import Backend

Array = npt.NDArray[Any]

INPUT = "ExpandDims:0"
POOL = "pool_3:0"
SPATIAL = "mixed_6/conv:0"
CLASSIFIER = "softmax/logits/MatMul"
"""An operation; its second input is the weights of the last layer."""
SPATIAL_CHANNELS = 7
PACKAGES = {"tensorflow": "tensorflow-cpu", "torch": "torch"}
"""The package whose version a record states, by backend."""


class Graph(Protocol):
    """(n, H, W, 3) uint8 images -> pool features (n, D) and spatial features (n, S), float32.

    The graph resizes and scales by itself: its input is images of any size, float32 in 0..255.
    """

    classifier: Array
    """(D, C) float32, weights of the last layer."""

    def features(self, images_u8: Array) -> tuple[Array, Array]:
        """Pool features (n, D) and spatial features (n, S), the latter flattened in the order y, x, channel."""

    def close(self) -> None:
        """Free what it holds."""


def open_graph(path: Path, backend: Backend) -> Graph:
    """Load `classify_image_graph_def.pb`.

    Args:
        path: the file.
        backend: what evaluates it.
    Raises:
        MissingAsset: the file is not that graph.
        EnvironmentFailure: the backend's library is not installed.
    """
    if backend == "torch":
        from benchmarks.adm.torch_graph import TorchGraph

        return TorchGraph(path)
    from benchmarks.adm.inception_graph import InceptionGraph

    return InceptionGraph(path)


def not_the_graph(path: Path, problem: object) -> str:
    """The sentence about a file that is something else."""
    return (
        f"{path}: is not the Inception graph of the ADM evaluator ({problem}); "
        "fetch it again: harness assets pull adm-inception-graph"
    )

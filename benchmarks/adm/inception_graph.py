"""The frozen Inception graph of the ADM evaluator, run by TensorFlow: images in, features out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.adm.graph import CLASSIFIER, INPUT, POOL, SPATIAL, SPATIAL_CHANNELS, not_the_graph
from harness.contract.errors import EnvironmentFailure, MissingAsset

# Before the import: TensorFlow reads it once, and its start-up messages would hide the progress lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

try:
    import tensorflow.compat.v1 as tf
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
except ImportError as error:
    raise EnvironmentFailure(
        f"TensorFlow cannot be imported ({error}); run this scorer through the harness, "
        "or in an environment made from benchmarks/adm/requirements.lock."
    ) from error

Array = npt.NDArray[Any]


class InceptionGraph:
    """The graph in a TensorFlow session; a `benchmarks.adm.graph.Graph`."""

    def __init__(self, path: Path) -> None:
        """Load `classify_image_graph_def.pb`.

        Raises MissingAsset when the file is not that graph.
        """
        graph = tf.Graph()
        with graph.as_default():
            self._images = tf.placeholder(tf.float32, shape=[None, None, None, 3])
            definition = tf.GraphDef()
            try:
                definition.ParseFromString(path.read_bytes())
                self._pool, spatial, classifier = tf.import_graph_def(
                    definition, input_map={INPUT: self._images}, return_elements=[POOL, SPATIAL, CLASSIFIER], name=""
                )
            except (DecodeError, ValueError) as error:
                raise MissingAsset(not_the_graph(path, error)) from error
            self._spatial = spatial[..., :SPATIAL_CHANNELS]
        self._session = tf.Session(graph=graph)
        self.classifier: Array = self._session.run(classifier.inputs[1])
        """(D, C) float32, weights of the last layer."""

    def features(self, images_u8: Array) -> tuple[Array, Array]:
        """Pool features (n, D) and spatial features (n, S), the latter flattened in the order y, x, channel."""
        pool, spatial = self._session.run(
            [self._pool, self._spatial], feed_dict={self._images: images_u8.astype(np.float32)}
        )
        return pool.reshape(len(images_u8), -1), spatial.reshape(len(images_u8), -1)

    def close(self) -> None:
        self._session.close()


class TensorFlowDistances:
    """The evaluator's float16 squared distances in TensorFlow's own arithmetic; a `harness.metrics.prdc.Distance`."""

    def __init__(self) -> None:
        graph = tf.Graph()
        with graph.as_default():
            self._inputs = {
                dtype: [tf.placeholder(dtype, [None, None]) for _ in "uv"] for dtype in ("float16", "float32")
            }
            self._outputs = {dtype: _squared_distances(*inputs) for dtype, inputs in self._inputs.items()}
        self._session = tf.Session(graph=graph)

    def __call__(self, rows: Array, columns: Array) -> Array:
        """(R, D), (C, D) float32 -> (R, C) float32; a block with a value that is not finite is redone in float32."""
        block = self._run("float16", rows, columns)
        return block if np.isfinite(block).all() else self._run("float32", rows, columns)

    def _run(self, dtype: str, rows: Array, columns: Array) -> Array:
        with np.errstate(over="ignore"):
            feed = dict(zip(self._inputs[dtype], (rows.astype(dtype), columns.astype(dtype)), strict=True))
        return self._session.run(self._outputs[dtype], feed_dict=feed).astype(np.float32)


def _squared_distances(u: Any, v: Any) -> Any:
    norm_u = tf.reshape(tf.reduce_sum(tf.square(u), axis=1), [-1, 1])
    norm_v = tf.reshape(tf.reduce_sum(tf.square(v), axis=1), [1, -1])
    return tf.maximum(norm_u - 2 * tf.matmul(u, v, transpose_b=True) + norm_v, 0.0)

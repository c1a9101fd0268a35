"""A frozen graph of the public Inception's shape, with random weights: its nodes, names, sizes, and old operations.

`write(path)` writes the file; the same seed gives the same bytes. The layout is that of the FID Inception
(`harness.scoring.networks.inception`), whose weights were taken from the public graph: `state_dict` gives them under
its names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.graph_pb2 import GraphDef

EPSILON = 0.001
NUM_CLASSES = 1008

Array = np.ndarray


class Builder:
    def __init__(self, seed: int = 0) -> None:
        self.graph = GraphDef()  # without a version: as old as the public file
        self.rng = np.random.default_rng(seed)
        self.state: dict[str, Array] = {}
        self.channels: dict[str, int] = {}

    def add(self, name: str, op: str, inputs: Sequence[str] = (), **attributes: Any) -> str:
        node = self.graph.node.add(name=name, op=op, input=list(inputs))
        for key, value in attributes.items():
            attribute = node.attr[key]
            if isinstance(value, bool):
                attribute.b = value
            elif isinstance(value, float):
                attribute.f = value
            elif isinstance(value, str):
                attribute.s = value.encode()
            elif isinstance(value, list):
                attribute.list.i.extend(value)
            elif key == "N":
                attribute.i = value
            else:
                attribute.type = value
        return name

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        number = {np.float32: 1, np.int32: 3}[dtype]
        array = np.asarray(value, dtype)
        self.add(name, "Const", dtype=number)
        tensor = self.graph.node[-1].attr["value"].tensor
        tensor.dtype = number
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = array.tobytes()
        return name

    def conv(
        self,
        name: str,
        source: str,
        theirs: str,
        out: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: str = "SAME",
    ) -> str:
        """Convolution, batch norm and ReLU, under the name `theirs` in the FID Inception."""
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        inside = self.channels[source]
        scale = np.sqrt(2 / (inside * height * width))
        weights = (self.rng.standard_normal((height, width, inside, out)) * scale).astype(np.float32)
        mean, beta = (self.rng.normal(0, 0.1, out).astype(np.float32) for _ in range(2))
        variance, gamma = (self.rng.uniform(0.7, 1.3, out).astype(np.float32) for _ in range(2))
        read = self.constant(f"{name}/conv2d_params", weights)
        strides = [1, stride, stride, 1]
        raw = self.add(f"{name}/Conv2D", "Conv2D", [source, read], T=1, strides=strides, padding=padding)
        norms = {"moving_mean": mean, "moving_variance": variance, "beta": beta, "gamma": gamma}
        read_norms = [self.constant(f"{name}/batchnorm/{key}", value) for key, value in norms.items()]
        normed = self.add(
            f"{name}/batchnorm",
            "BatchNormWithGlobalNormalization",
            [raw, *read_norms],
            T=1,
            variance_epsilon=EPSILON,
            scale_after_normalization=True,
        )
        checked = self.add(f"{name}/CheckNumerics", "CheckNumerics", [normed], T=1, message="not finite")
        same = self.add(f"{name}/control_dependency", "Identity", [normed, f"^{checked}"], T=1)
        self.state[f"{theirs}.conv.weight"] = weights.transpose(3, 2, 0, 1)
        for key, value in zip(("running_mean", "running_var", "bias", "weight"), norms.values(), strict=True):
            self.state[f"{theirs}.bn.{key}"] = value
        self.channels[name] = out
        return self.add(name, "Relu", [same], T=1)

    def pool(self, name: str, op: str, source: str, stride: int = 1, padding: str = "SAME") -> str:
        self.channels[name] = self.channels[source]
        sizes = {"ksize": [1, 3, 3, 1], "strides": [1, stride, stride, 1]}
        return self.add(name, op, [source], T=1, padding=padding, **sizes)

    def join(self, block: str, branches: Sequence[str]) -> str:
        axis = self.constant(f"{block}/join/concat_dim", 3, np.int32)
        self.channels[f"{block}/join"] = sum(self.channels[branch] for branch in branches)
        return self.add(f"{block}/join", "Concat", [axis, *branches], T=1, N=len(branches))

    # --- blocks ------------------------------------------------------------------------------------------------------

    def stem(self) -> str:
        self.add("DecodeJpeg", "Placeholder", dtype=1)
        axis = self.constant("ExpandDims/dim", 0, np.int32)
        self.add("ExpandDims", "ExpandDims", ["DecodeJpeg", axis], T=1)
        size = self.constant("ResizeBilinear/size", [299, 299], np.int32)
        self.add("ResizeBilinear", "ResizeBilinear", ["ExpandDims", size], T=1, align_corners=False)
        self.add("Sub", "Sub", ["ResizeBilinear", self.constant("Sub/y", 128)], T=1)
        self.add("Mul", "Mul", ["Sub", self.constant("Mul/y", 1 / 128)], T=1)
        self.channels["Mul"] = 3
        x = self.conv("conv", "Mul", "Conv2d_1a_3x3", 32, 3, stride=2, padding="VALID")
        x = self.conv("conv_1", x, "Conv2d_2a_3x3", 32, 3, padding="VALID")
        x = self.conv("conv_2", x, "Conv2d_2b_3x3", 64, 3)
        x = self.pool("pool", "MaxPool", x, 2, "VALID")
        x = self.conv("conv_3", x, "Conv2d_3b_1x1", 80, padding="VALID")
        x = self.conv("conv_4", x, "Conv2d_4a_3x3", 192, 3, padding="VALID")
        return self.pool("pool_1", "MaxPool", x, 2, "VALID")

    def tower(self, block: str, tower: str, source: str, theirs: str, convs: Sequence[tuple[str, int, Any]]) -> str:
        x = source
        for number, (suffix, out, kernel) in enumerate(convs):
            name = f"{block}/{tower}conv" + (f"_{number}" if number else "")
            x = self.conv(name, x, f"{theirs}.{suffix}", out, kernel)
        return x

    def block_a(self, block: str, x: str, theirs: str, pooled: int) -> str:
        threes = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
        branches = [
            self.tower(block, "", x, theirs, [("branch1x1", 64, 1)]),
            self.tower(block, "tower/", x, theirs, [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)]),
            self.tower(block, "tower_1/", x, theirs, threes),
        ]
        pool = self.pool(f"{block}/tower_2/pool", "AvgPool", x)
        return self.join(block, [*branches, self.tower(block, "tower_2/", pool, theirs, [("branch_pool", pooled, 1)])])

    def block_b(self, block: str, x: str, theirs: str) -> str:
        first = self.conv(f"{block}/conv", x, f"{theirs}.branch3x3", 384, 3, stride=2, padding="VALID")
        tower = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3)]
        y = self.tower(block, "tower/", x, theirs, tower)
        y = self.conv(f"{block}/tower/conv_2", y, f"{theirs}.branch3x3dbl_3", 96, 3, stride=2, padding="VALID")
        return self.join(block, [first, y, self.pool(f"{block}/pool", "MaxPool", x, 2, "VALID")])

    def block_c(self, block: str, x: str, theirs: str, width: int) -> str:
        wide, tall = (1, 7), (7, 1)
        sevens = [("branch7x7_1", width, 1), ("branch7x7_2", width, wide), ("branch7x7_3", 192, tall)]
        double = [(f"branch7x7dbl_{n}", width, k) for n, k in enumerate((1, tall, wide, tall), start=1)]
        branches = [
            self.tower(block, "", x, theirs, [("branch1x1", 192, 1)]),
            self.tower(block, "tower/", x, theirs, sevens),
            self.tower(block, "tower_1/", x, theirs, [*double, ("branch7x7dbl_5", 192, wide)]),
        ]
        pool = self.pool(f"{block}/tower_2/pool", "AvgPool", x)
        return self.join(block, [*branches, self.tower(block, "tower_2/", pool, theirs, [("branch_pool", 192, 1)])])

    def block_d(self, block: str, x: str, theirs: str) -> str:
        y = self.tower(block, "tower/", x, theirs, [("branch3x3_1", 192, 1)])
        y = self.conv(f"{block}/tower/conv_1", y, f"{theirs}.branch3x3_2", 320, 3, stride=2, padding="VALID")
        sevens = [(f"branch7x7x3_{n}", 192, k) for n, k in enumerate((1, (1, 7), (7, 1)), start=1)]
        z = self.tower(block, "tower_1/", x, theirs, sevens)
        z = self.conv(f"{block}/tower_1/conv_3", z, f"{theirs}.branch7x7x3_4", 192, 3, stride=2, padding="VALID")
        return self.join(block, [y, z, self.pool(f"{block}/pool", "MaxPool", x, 2, "VALID")])

    def block_e(self, block: str, x: str, theirs: str, pool: str) -> str:
        first = self.tower(block, "", x, theirs, [("branch1x1", 320, 1)])
        y = self.tower(block, "tower/", x, theirs, [("branch3x3_1", 384, 1)])
        z = self.tower(block, "tower_1/", x, theirs, [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)])
        halves = [
            self.conv(f"{block}/{tower}/mixed/conv{suffix}", source, f"{theirs}.{name}{part}", 384, kernel)
            for tower, source, name in (("tower", y, "branch3x3_2"), ("tower_1", z, "branch3x3dbl_3"))
            for suffix, part, kernel in (("", "a", (1, 3)), ("_1", "b", (3, 1)))
        ]
        pooled = self.pool(f"{block}/tower_2/pool", pool, x)
        last = self.tower(block, "tower_2/", pooled, theirs, [("branch_pool", 192, 1)])
        return self.join(block, [first, *halves, last])

    def head(self, x: str) -> None:
        self.add("pool_3", "AvgPool", [x], T=1, padding="VALID", ksize=[1, 8, 8, 1], strides=[1, 1, 1, 1])
        shape = self.constant("pool_3/_reshape/shape", [1, 2048], np.int32)
        self.add("pool_3/_reshape", "Reshape", ["pool_3", shape], T=1)
        weights = (self.rng.standard_normal((2048, NUM_CLASSES)) * 0.05).astype(np.float32)
        read = self.constant("softmax/weights", weights)
        self.add("softmax/logits/MatMul", "MatMul", ["pool_3/_reshape", read], T=1)
        self.state |= {"fc.weight": weights.T, "fc.bias": np.zeros(NUM_CLASSES, np.float32)}


def build(seed: int = 0) -> Builder:
    builder = Builder(seed)
    x = builder.stem()
    for block, theirs, pooled in (("mixed", "5b", 32), ("mixed_1", "5c", 64), ("mixed_2", "5d", 64)):
        x = builder.block_a(block, x, f"Mixed_{theirs}", pooled)
    x = builder.block_b("mixed_3", x, "Mixed_6a")
    for number, theirs, width in ((4, "6b", 128), (5, "6c", 160), (6, "6d", 160), (7, "6e", 192)):
        x = builder.block_c(f"mixed_{number}", x, f"Mixed_{theirs}", width)
    x = builder.block_d("mixed_8", x, "Mixed_7a")
    x = builder.block_e("mixed_9", x, "Mixed_7b", "AvgPool")
    builder.head(builder.block_e("mixed_10", x, "Mixed_7c", "MaxPool"))
    return builder


def write(path: Path, seed: int = 0) -> dict[str, Array]:
    """Write the graph, and return its weights under the names of the FID Inception."""
    builder = build(seed)
    path.write_bytes(builder.graph.SerializeToString(deterministic=True))
    return builder.state


def images(count: int, size: int) -> Array:
    """Smooth pictures with some noise, (count, size, size, 3) uint8."""
    rng = np.random.default_rng(1)
    coarse = rng.uniform(0, 255, (count, 6, 6, 3)).repeat(-(-size // 6), axis=1).repeat(-(-size // 6), axis=2)
    return np.clip(coarse[:, :size, :size] + rng.normal(0, 20, (count, size, size, 3)), 0, 255).astype(np.uint8)

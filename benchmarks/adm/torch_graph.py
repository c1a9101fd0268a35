"""The frozen Inception graph of the ADM evaluator, run by PyTorch: the same nodes, in TensorFlow's conventions.

Tensors keep TensorFlow's axes (B, H, W, C) between nodes; convolutions and pools look at them as (B, C, H, W), which
is PyTorch's `channels_last`: nothing is copied. Not tested on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.adm.graph import CLASSIFIER, INPUT, POOL, SPATIAL, SPATIAL_CHANNELS, not_the_graph
from benchmarks.adm.graph_def import Node, in_order, read_graph
from harness.contract.errors import EnvironmentFailure, MissingAsset
from harness.scoring.devices import available_devices
from harness.scoring.scorer import is_environment_error

try:
    import torch
    import torch.nn.functional as F
    from torch import Tensor
except ImportError as error:
    raise EnvironmentFailure(
        f"PyTorch cannot be imported ({error}); run this scorer through the harness with --set adm.backend=torch, "
        "or in an environment made from benchmarks/adm/requirements-torch.lock."
    ) from error

Array = npt.NDArray[Any]
Operation = Callable[..., Tensor]

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "int32": torch.int32, "int64": torch.int64}
_LARGEST = 1 << 26
"""Values of one tensor for the first, small image: a file cannot ask for more memory than that."""
_LARGEST_SIDE = 4096
_FIRST = (1, 64, 64, 3)
_IN_TURN_OF = {"Concat": slice(1, None), "ConcatV2": slice(0, -1)}


class TorchGraph:
    """The graph in PyTorch, on the GPU where there is one, in float32; a `benchmarks.adm.graph.Graph`."""

    def __init__(self, path: Path, device: str | None = None) -> None:
        """Load `classify_image_graph_def.pb`.

        Args:
            path: the file.
            device: such as "cpu"; None: the first GPU, or the CPU where there is none.
        Raises:
            MissingAsset: the file is not that graph, or has an operation that is not known here; says which.
        """
        self.device = torch.device(device or available_devices()[0])
        # Their defaults, for convolutions at least, round to 10 bits.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        try:
            nodes = read_graph(path)
            self.classifier: Array = _classifier(nodes)
            self._program = _Program(nodes, [_name(POOL), _name(SPATIAL)], _name(INPUT), self.device)
            self.features(np.zeros(_FIRST, np.uint8))
        except (ValueError, LookupError, TypeError, RuntimeError) as error:
            if is_environment_error(error):
                raise
            raise MissingAsset(not_the_graph(path, " ".join(str(error).split())[:200])) from error

    @torch.inference_mode()
    def features(self, images_u8: Array) -> tuple[Array, Array]:
        """Pool features (n, D) and spatial features (n, S), the latter flattened in the order y, x, channel."""
        images = torch.from_numpy(np.ascontiguousarray(images_u8)).to(self.device)
        pool, spatial = self._program(images.float())
        return pool.flatten(1).cpu().numpy(), spatial[..., :SPATIAL_CHANNELS].flatten(1).cpu().numpy()

    def close(self) -> None:
        del self._program


def _name(tensor: str) -> str:
    return tensor.partition(":")[0]


def _classifier(nodes: Mapping[str, Node]) -> Array:
    """(D, C) weights of the last layer, which the graph may read through nodes that pass them on."""
    if CLASSIFIER not in nodes or len(nodes[CLASSIFIER].inputs) != 2:
        raise ValueError(f"it has no node {CLASSIFIER!r} with two inputs")
    weights = nodes[CLASSIFIER].inputs[1]
    program = _Program(nodes, [weights], "", torch.device("cpu"))
    found: Array = program.constants[weights].numpy()
    return found


class _Program:
    """The nodes that some outputs need, in order, as calls; what no image affects is computed once, here."""

    def __init__(self, nodes: Mapping[str, Node], wanted: Sequence[str], fed: str, device: torch.device) -> None:
        self.fed, self.wanted = fed, wanted
        self.constants: dict[str, Tensor] = {}
        self.calls: list[tuple[Node, Operation]] = []
        for node in in_order(nodes, wanted, fed):
            if node.op == "Const":
                self.constants[node.name] = _constant(node.attributes["value"], device)
                continue
            operation = _operation(node)
            if all(name in self.constants for name in node.inputs):
                self.constants[node.name] = operation(*(self.constants[name] for name in node.inputs))
            else:
                self.calls.append((node, operation))
        self.last_use = {name: place for place, (node, _) in enumerate(self.calls) for name in node.inputs}

    def __call__(self, images: Tensor) -> list[Tensor]:
        values: dict[str, Tensor] = {self.fed: images}
        for place, (node, operation) in enumerate(self.calls):
            inputs = [values[name] if name in values else self.constants[name] for name in node.inputs]
            values[node.name] = operation(*inputs)
            if values[node.name].numel() > _LARGEST * len(images):
                raise ValueError(f"the node {node.name!r} gives {values[node.name].numel():,} values")
            for name in node.inputs:  # a batch of activations is large: keep none longer than it is needed
                if self.last_use[name] == place and name not in self.wanted:
                    values.pop(name, None)
        return [values[name] for name in self.wanted]


def _constant(value: Array, device: torch.device) -> Tensor:
    """Numbers that images meet, on the device; shapes and axes stay where Python reads them."""
    tensor = torch.from_numpy(np.array(value))
    return tensor.to(device) if tensor.is_floating_point() else tensor


# --- operations ------------------------------------------------------------------------------------------------------


def _operation(node: Node) -> Operation:
    """What a node does, with its attributes; ValueError when that is not known here."""
    make = _OPERATIONS.get(node.op)
    if make is None:
        raise ValueError(f"the node {node.name!r} is of the kind {node.op!r}, which the PyTorch backend does not know")
    return make(node)


def _plain(operation: Operation) -> Callable[[Node], Operation]:
    """An operation without attributes that matter."""
    return lambda node: operation


def _conv(node: Node) -> Operation:
    (_, down, right, _), (_, by_y, by_x, _) = _four(node, "strides"), _four(node, "dilations", (1, 1, 1, 1))
    mode = _padding_mode(node)

    def convolve(images: Tensor, weights: Tensor) -> Tensor:  # (B, H, W, C), (kh, kw, C, out)
        kernel = weights.permute(3, 2, 0, 1)
        padded, padding = _padded(_channels_first(images), kernel.shape[2:], (down, right), (by_y, by_x), mode)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        return _channels_last(F.conv2d(padded, kernel, None, (down, right), padding, (by_y, by_x)))

    return convolve


def _max_pool(node: Node) -> Operation:
    window, stride, mode = _window(node), _four(node, "strides")[1:3], _padding_mode(node)

    def pool(images: Tensor) -> Tensor:
        padded, padding = _padded(_channels_first(images), window, stride, (1, 1), mode, value=-torch.inf)
        return _channels_last(F.max_pool2d(padded, window, stride, padding))

    return pool


def _average_pool(node: Node) -> Operation:
    """TensorFlow's average is over the positions that are inside the image."""
    window, stride, mode = _window(node), _four(node, "strides")[1:3], _padding_mode(node)

    def pool(images: Tensor) -> Tensor:
        padded, padding = _padded(_channels_first(images), window, stride, (1, 1), mode)
        if padded.shape[2:] == images.shape[1:3]:
            return _channels_last(F.avg_pool2d(padded, window, stride, padding, count_include_pad=False))
        inside, _ = _padded(torch.ones_like(images[:1, :, :, :1]).permute(0, 3, 1, 2), window, stride, (1, 1), mode)
        total, count = (F.avg_pool2d(x, window, stride, divisor_override=1) for x in (padded, inside))
        return _channels_last(total / count)

    return pool


def _batch_norm_with_global_normalization(node: Node) -> Operation:
    epsilon, scaled = node.attributes["variance_epsilon"], node.attributes["scale_after_normalization"]

    def normalize(x: Tensor, mean: Tensor, variance: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
        scale = torch.rsqrt(variance + epsilon) * (gamma if scaled else 1)
        return torch.addcmul(beta - mean * scale, x, scale)

    return normalize


def _fused_batch_norm(node: Node) -> Operation:
    _refuse_other_layouts(node)
    if node.attributes.get("is_training", True):
        raise ValueError(f"the node {node.name!r} normalizes by the batch, as in training")
    epsilon = node.attributes.get("epsilon", 1e-4)

    def normalize(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = torch.rsqrt(variance + epsilon) * gamma
        return torch.addcmul(beta - mean * scale, x, scale)

    return normalize


def _concat(node: Node) -> Operation:
    axis_at = 0 if node.op == "Concat" else -1
    return lambda *inputs: torch.cat(inputs[_IN_TURN_OF[node.op]], dim=int(inputs[axis_at]))


def _matmul(node: Node) -> Operation:
    turned = [bool(node.attributes.get(f"transpose_{side}", False)) for side in "ab"]
    return lambda a, b: (a.T if turned[0] else a) @ (b.T if turned[1] else b)


def _resize_bilinear(node: Node) -> Operation:
    aligned = bool(node.attributes.get("align_corners", False))
    centred = bool(node.attributes.get("half_pixel_centers", False))

    def resize(images: Tensor, size: Tensor) -> Tensor:
        height, width = (int(side) for side in size)
        if not 0 < max(height, width) <= _LARGEST_SIDE:
            raise ValueError(f"the node {node.name!r} resizes to {height} x {width}")
        across = _interpolated(images.float(), 2, width, aligned, centred)
        return _interpolated(across, 1, height, aligned, centred)

    return resize


def _interpolated(images: Tensor, axis: int, size: int, aligned: bool, centred: bool) -> Tensor:
    """Linear interpolation along one axis, in float32 as TensorFlow does it: low + (high - low) * position."""
    given = images.shape[axis]
    if size == given:
        return images
    scale = torch.tensor((given - 1) / (size - 1) if aligned and size > 1 else given / size, dtype=torch.float32)
    places = torch.arange(size, dtype=torch.float32)
    places = (places + 0.5) * scale - 0.5 if centred else places * scale
    low = places.floor()
    shape = [1] * images.ndim
    shape[axis] = size
    weight = (places - low).to(images.device).view(shape)
    below = images.index_select(axis, low.clamp(min=0).long().to(images.device))
    above = images.index_select(axis, places.ceil().clamp(max=given - 1).long().to(images.device))
    return below + (above - below) * weight


def _cast(node: Node) -> Operation:
    wanted = _DTYPES.get(str(node.attributes.get("DstT")))
    if wanted is None:
        raise ValueError(f"the node {node.name!r} casts to {node.attributes.get('DstT')}")
    return lambda x: x.to(wanted)


def _squeeze(node: Node) -> Operation:
    axes = node.attributes.get("squeeze_dims") or node.attributes.get("axis") or ()
    return lambda x: x.squeeze(axes) if axes else x.squeeze()


def _mean(node: Node) -> Operation:
    kept = bool(node.attributes.get("keep_dims", False))
    return lambda x, axes: x.mean(tuple(axes.reshape(-1).tolist()), keepdim=kept)


def _reshape(x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape(shape.tolist())


def _bias_add(node: Node) -> Operation:
    _refuse_other_layouts(node)
    return torch.add


_OPERATIONS: dict[str, Callable[[Node], Operation]] = {
    **dict.fromkeys(("Identity", "CheckNumerics", "StopGradient"), _plain(lambda x, *_: x)),
    **dict.fromkeys(("Add", "AddV2"), _plain(torch.add)),
    "AvgPool": _average_pool,
    "BatchNormWithGlobalNormalization": _batch_norm_with_global_normalization,
    "BiasAdd": _bias_add,
    "Cast": _cast,
    **dict.fromkeys(("Concat", "ConcatV2"), _concat),
    "Conv2D": _conv,
    "ExpandDims": _plain(lambda x, axis: x.unsqueeze(int(axis))),
    **dict.fromkeys(("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"), _fused_batch_norm),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mean": _mean,
    "Mul": _plain(torch.mul),
    "RealDiv": _plain(torch.div),
    "Relu": _plain(torch.relu),
    "Relu6": _plain(F.relu6),
    "Reshape": _plain(_reshape),
    "ResizeBilinear": _resize_bilinear,
    "Rsqrt": _plain(torch.rsqrt),
    "Softmax": _plain(lambda x: x.softmax(-1)),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
}


# --- TensorFlow's conventions ----------------------------------------------------------------------------------------


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)


def _channels_last(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1)


def _four(node: Node, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """An attribute with a number for each axis."""
    _refuse_other_layouts(node)
    numbers = tuple(node.attributes.get(name) or default or ())
    if len(numbers) != 4 or numbers[0] != 1 or numbers[3] != 1 or not all(0 < one <= _LARGEST_SIDE for one in numbers):
        raise ValueError(f"the node {node.name!r} has {name} {numbers}")
    return numbers


def _window(node: Node) -> tuple[int, ...]:
    return _four(node, "ksize")[1:3]


def _padding_mode(node: Node) -> str:
    mode = node.attributes.get("padding")
    if mode not in ("SAME", "VALID"):
        raise ValueError(f"the node {node.name!r} has padding {mode!r}")
    return str(mode)


def _refuse_other_layouts(node: Node) -> None:
    layout = node.attributes.get("data_format", "NHWC")
    if layout != "NHWC":
        raise ValueError(f"the node {node.name!r} has its data in the order {layout}")


def _padded(
    images: Tensor,
    window: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    mode: str,
    *,
    value: float = 0.0,
) -> tuple[Tensor, tuple[int, int]]:
    """(B, C, H, W) images and the padding that is still to be added: TensorFlow's SAME may have one more at the end."""
    if mode == "VALID":
        return images, (0, 0)
    sides = [_same(size, *rest) for size, *rest in zip(images.shape[2:], window, stride, dilation, strict=True)]
    if all(before == after for before, after in sides):
        return images, (sides[0][0], sides[1][0])
    (top, bottom), (left, right) = sides
    return F.pad(images, (left, right, top, bottom), value=value), (0, 0)


def _same(size: int, window: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding before and after, so that the output has ceil(size / stride) positions."""
    total = max((-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2

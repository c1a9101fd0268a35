"""Mask2Former Swin-S by MMDetection 3: image in, boxes and masks of 80 classes out.

The network is the one in MMDetection's own configuration. Its one compiled operator, deformable attention, has two
backends here: mmcv's compiled one, which comes with full mmcv and must be built for the GPU in use; and mmcv's plain
PyTorch one, which runs wherever PyTorch does. Without CUDA, mmcv itself chooses the second.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.geneval.interface import Backend
from benchmarks.geneval.weights import fill
from harness.contract.errors import EnvironmentFailure, MissingAsset

Array = npt.NDArray[Any]

ASSET = "mask2former-swin-s"
CONFIG = "configs/mask2former/mask2former_swin-s-p4-w7-224_8xb2-lsj-50e_coco.py"
NUM_CLASSES = 80
LONG_SIDE, SHORT_SIDE = 1333, 800
"""The image is enlarged until one of them is reached."""


@dataclass(frozen=True, eq=False)
class Objects:
    """What was found in one image, per class name: regardless of score."""

    boxes: dict[str, Array]
    """(n, 5) float32: x1, y1, x2, y2 in pixels of the image, score."""
    masks: dict[str, Array]
    """(n, H, W) bool."""


def backend_in_force(wanted: Backend, device: str) -> str:
    """Which backend computes deformable attention on a device.

    Raises:
        EnvironmentFailure: the compiled one is requested, but this mmcv does not have it.
    """
    compiled = _has_compiled_operators()
    if wanted == "compiled" and not compiled:
        raise EnvironmentFailure(
            "mmcv has no compiled operators here (mmcv-lite); use --set geneval.backend=pytorch, or an image with full "
            "mmcv built for this GPU."
        )
    if not device.startswith("cuda"):
        return "pytorch"
    return "compiled" if compiled and wanted != "pytorch" else "pytorch"


class Detector:
    """Mask2Former on one device.

    Args:
        weights: the checkpoint, or a recipe (`weights.py`).
        names: the 80 class names, in the detector's order.
    """

    def __init__(self, weights: Path, names: Sequence[str], device: str, backend: Backend = "auto") -> None:
        if len(names) != NUM_CLASSES:
            raise MissingAsset(
                f"there are {len(names)} class names, but the detector has {NUM_CLASSES}; "
                "fetch them again: harness assets pull geneval-object-names"
            )
        self.names = tuple(names)
        self.device = device
        self.backend = backend_in_force(backend, device)
        self.network = _build_network(self.backend)
        self.note = fill(self.network, weights, ASSET)
        self.network.to(device).eval()
        self.pipeline = _pipeline()

    @torch.inference_mode()
    def find(self, image_u8: Array) -> Objects:
        """Find objects in one image, (H, W, 3) uint8 RGB."""
        packed = self.pipeline({"img": np.ascontiguousarray(image_u8[..., ::-1]), "img_id": 0})  # it expects BGR
        (sample,) = self.network.test_step({"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]})
        found = sample.pred_instances.cpu().numpy()
        boxes = np.concatenate([found.bboxes, found.scores[:, None]], axis=1).astype(np.float32)
        rows = {name: np.flatnonzero(found.labels == index) for index, name in enumerate(self.names)}
        return Objects(
            boxes={name: boxes[chosen] for name, chosen in rows.items() if len(chosen)},
            masks={name: found.masks[chosen] for name, chosen in rows.items() if len(chosen)},
        )


def _build_network(backend: str) -> Any:
    _stand_in_for_compiled_operators()
    import mmdet
    from mmcv.ops import multi_scale_deform_attn
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules(init_default_scope=True)
    config = Config.fromfile(Path(mmdet.__file__).parent / ".mim" / CONFIG)
    config.model.backbone.init_cfg = None  # it would download weights that are overwritten anyway
    # mmcv checks this name to decide whether to call the compiled operator.
    multi_scale_deform_attn.IS_CUDA_AVAILABLE = backend == "compiled"
    return MODELS.build(config.model)


def _pipeline() -> Any:
    """The test pipeline of the configuration, without the loading of files and annotations."""
    from mmengine.dataset import Compose

    return Compose(
        [
            {"type": "mmdet.LoadImageFromNDArray"},
            {"type": "mmdet.Resize", "scale": (LONG_SIDE, SHORT_SIDE), "keep_ratio": True},
            {
                "type": "mmdet.PackDetInputs",
                "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
            },
        ]
    )


class _NoOperators(types.ModuleType):
    """Replaces `mmcv._ext`: mmcv's modules look up their operators when they are imported; none is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError(f"mmcv was installed without its compiled operator {name}")

        return missing


def _has_compiled_operators() -> bool:
    loaded = sys.modules.get("mmcv._ext")
    if loaded is not None:
        return not isinstance(loaded, _NoOperators)
    return importlib.util.find_spec("mmcv") is not None and importlib.util.find_spec("mmcv._ext") is not None


def _stand_in_for_compiled_operators() -> None:
    if not _has_compiled_operators():
        sys.modules.setdefault("mmcv._ext", _NoOperators("mmcv._ext"))

"""mPLUG, the model that answers DPG-Bench's questions: an image and a question in, a text out.

The network is ModelScope's; its pipeline and preprocessors are not used: they need fairseq and librosa. Two things
are done differently from ModelScope's own loading, which ignores missing weights and reads its YAML file with a loader
that can run code: here every parameter must be in the checkpoint, and files are read safely.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from harness.contract.errors import MissingAsset
from harness.contract.yaml import parse_yaml

Array = npt.NDArray[Any]

WEIGHTS = "mplug-vqa-weights"
FILES = {
    "mplug-vqa-config": "config.yaml",
    "mplug-vqa-bert-config": "config_bert.json",
    "mplug-vqa-configuration": "configuration.json",
    "mplug-vqa-vocabulary": "vocab.txt",
}
"""Asset -> its name in the model folder."""
QUESTION_TOKENS = 25
"""Longer questions are cut, shorter ones padded."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_TASK = "visual-question-answering"
_TRAINING_TWINS = re.compile(r"^\w+_m\.|^(image|text|idx)_queue|^queue_ptr")
"""Averaged copies and queues of the distillation, which answering does not use."""
_BIAS_STD = 0.02


class Answerer:
    """mPLUG on one device.

    Args:
        files: asset name -> file; the weights may be a recipe for noise (`fill`).
        scratch: an empty folder, where the model folder is assembled.
    """

    def __init__(self, files: Mapping[str, Path], scratch: Path, device: str) -> None:
        from modelscope.models.multi_modal.mplug import MPlug

        folder = model_folder(files, scratch)
        self.device = device
        self.network: Any = MPlug.from_pretrained(str(folder), task=_TASK, load_checkpoint=False)
        fill(self.network, files[WEIGHTS])
        self.network.to(device).eval()
        # Without this the image would be embedded again for each of its dozen questions.
        self.network.visual_encoder.visual = RememberLast(self.network.visual_encoder.visual)
        side = self.network.config.image_res
        self.pixels_of: Any = transforms.Compose(
            [
                transforms.Resize((side, side), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.ToTensor(),
                transforms.Normalize(CLIP_MEAN, CLIP_STD),
            ]
        )

    @torch.inference_mode()
    def answer(self, image_u8: Array, questions: Sequence[str]) -> list[str]:
        """Answer questions about one image, (H, W, 3) uint8."""
        pixels = self.pixels_of(Image.fromarray(image_u8))[None].to(self.device)
        tokenizer = self.network.tokenizer
        answers = []
        for question in questions:
            words = tokenizer(
                question.lower(),
                padding="max_length",
                truncation=True,
                max_length=QUESTION_TOKENS,
                return_tensors="pt",
            )
            topk_ids, _ = self.network(pixels, words.to(self.device), train=False)
            answers.append(tokenizer.decode(topk_ids[0][0], skip_special_tokens=True))
        return answers


class RememberLast(nn.Module):
    """Calls a module again only when it is given another tensor."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._last: tuple[Tensor, Any] | None = None

    def forward(self, image: Tensor, **options: Any) -> Any:
        if self._last is None or self._last[0] is not image:
            self._last = (image, self.module(image, **options))
        return self._last[1]


def model_folder(files: Mapping[str, Path], scratch: Path) -> Path:
    """Assemble the model's small files as ModelScope expects them; its YAML is read safely and rewritten.

    Raises:
        MissingAsset: a file cannot be read.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for asset, name in FILES.items():
        shutil.copyfile(files[asset], scratch / name)
    path = files["mplug-vqa-config"]
    try:
        config = parse_yaml(path.read_text(encoding="utf-8"))
        # The averaged copy of every network is only for training, and would double the memory.
        (scratch / "config.yaml").write_text(yaml.safe_dump({**config, "distill": False}), encoding="utf-8")
    except (TypeError, ValueError) as error:
        raise MissingAsset(f"{path}: cannot be read as YAML ({error}); fetch it again: harness assets pull") from error
    return scratch


def fill(network: nn.Module, path: Path) -> None:
    """Load the checkpoint at `path`; every parameter must be in it.

    Or it is a recipe, a JSON file `{"random_weights": SEED, "add": {KEY: {INDEX: VALUE}}}`: noise that is
    the same everywhere, for the gold check and for tests.

    Raises:
        MissingAsset: the file is damaged, or of another network.
    """
    if path.suffix == ".json":
        recipe = json.loads(path.read_text(encoding="utf-8"))
        fill_with_noise(network, recipe["random_weights"], recipe.get("add", {}))
        return
    again = f"fetch it again: harness assets pull {WEIGHTS}"
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise MissingAsset(f"{path}: cannot be read as weights ({str(error).splitlines()[0]}); {again}") from error
    for wrapper in ("model", "module"):
        content = content.get(wrapper, content)
    state_dict = {key.replace("model.", ""): value for key, value in content.items()}
    result = network.load_state_dict(state_dict, strict=False)
    parameters = {name for name, _ in network.named_parameters()}
    missing = sorted(parameters & set(result.missing_keys))
    extra = [key for key in result.unexpected_keys if not _TRAINING_TWINS.match(key) and "position_ids" not in key]
    if missing or extra:
        raise MissingAsset(
            f"{path}: does not fit mPLUG: {len(missing)} parameters missing {missing[:2]}, {len(extra)} keys left over "
            f"{extra[:2]}; {again}"
        )


def fill_with_noise(network: nn.Module, seed: int, add: Mapping[str, Mapping[str, float]]) -> None:
    """Fill a network from one stream per key: nothing but seed, key and shape decides the values."""
    with torch.no_grad():
        for key, tensor in network.named_parameters():
            stream = np.random.default_rng(zlib.crc32(f"{seed}/{key}".encode()))
            std = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else _BIAS_STD
            noise = torch.from_numpy(stream.standard_normal(tuple(tensor.shape), np.float32)) * std
            is_scale = tensor.dim() == 1 and key.endswith("weight")
            tensor.copy_(noise + 1.0 if is_scale else noise)
            for index, value in add.get(key, {}).items():
                tensor[int(index)] += value

"""Convert models to the hub layout (a folder of safetensors with a model card), and back to the reference's `.pt`.

Values, types and names do not change: `to_reference(to_hub(x))` holds the tensors of x, bit for bit.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import yaml

from gear import __version__
from gear.ar.checkpoints import is_text_to_image
from gear.foreign import StateDict
from gear.training.checkpoint import save_tensors
from gear.weights.describe import ar_line, tokenizer_line
from gear.weights.hub_layout import Card, ar_fields
from gear.weights.layouts import PARTS
from gear.weights.locate import CARD_FILE
from gear.weights.model_file import ModelFile
from harness.contract.digest import sha256_file
from harness.contract.errors import UserError
from harness.contract.files import explain_disk_errors, partial_path, write_atomically

README = "README.md"
_UNFINISHED = ".gear-convert"
"""Marks a folder while a conversion is written into it: the model files in it are ours, and may be removed."""


def to_hub(
    model: ModelFile,
    out_dir: Path,
    *,
    parts: Sequence[str] = (),
    image_size: int | None = None,
    repo_id: str = "",
) -> Path:
    """Write `model` as a folder of safetensors with config.json and a model card; returns the folder.

    parts: only these of the model's parts (all by default). image_size: of an AR model whose file does not say it.
    repo_id: what the card calls the repository.
    config.json is written last, so an interrupted conversion is not taken for a model. Raises UserError when `out_dir`
    holds something else or the model itself, or a part is missing; EnvironmentFailure when the disk is full.
    """
    card = _card(model, _chosen(model, parts), image_size)  # refuses whatever it must before anything is written
    if model.path.resolve().parent == out_dir.resolve():
        raise UserError(f"{out_dir} holds {model.path.name}, which is being converted; give a new folder with --out.")
    with explain_disk_errors(out_dir / CARD_FILE):
        _make_room(out_dir)
        (out_dir / _UNFINISHED).touch()
        for part in card.parts:
            path = out_dir / f"{part}.safetensors"
            _save(model.parts[part], path)
            card.parts[part] = {"file": path.name, "sha256": sha256_file(path)}
    with write_atomically(out_dir / README) as stream:
        stream.write(model_card(model, card, repo_id or f"org/{out_dir.name}").encode())
    card.write(out_dir)
    (out_dir / _UNFINISHED).unlink()
    return out_dir


def to_reference(model: ModelFile, path: Path, *, parts: Sequence[str] = ()) -> Path:
    """Write `model` as one `.pt` with the reference's keys (vq, vq_ema, ar, ema, ..., args, steps); returns the file.

    `config` and `phase`, which the reference ignores, are added if `gear train` trained the model.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; the reference layout is one file: --out {path}/model.pt")
    content: dict[str, Any] = {part: dict(model.parts[part]) for part in _chosen(model, parts)}
    content["args"] = _settings(model)
    if model.steps is not None:
        content["steps"] = model.steps
    if model.run is not None:
        content |= {"config": model.run, "phase": model.phase}
    save_tensors(path, content)
    return path


def _settings(model: ModelFile) -> dict[str, Any]:
    """The settings of the original training, or those that a file name or a model card gives instead."""
    settings = dict(model.settings)
    if model.run is not None or not model.has("ar"):
        return settings
    plain = replace(model, path=Path(), card=None, preset=None)
    with suppress(UserError):
        if plain.image_size == model.image_size and plain.ar_config() == model.ar_config():
            return settings
    ar = model.ar_config()
    recorded = {"image_size": model.image_size, "downsample_ratio": model.downsample, "n_head": ar.n_head}
    recorded |= {name: getattr(ar, name) for name in ("cls_token_num", "text_attn", "num_classes") if hasattr(ar, name)}
    return {**{name: value for name, value in recorded.items() if value is not None}, **settings}


def _chosen(model: ModelFile, parts: Sequence[str]) -> list[str]:
    for part in parts:
        if part not in model.parts:
            raise UserError(f"{model.source} has no part {part!r}; it has {', '.join(model.parts)}.")
    return [part for part in model.parts if not parts or part in parts]


def _make_room(out_dir: Path) -> None:
    """Prepare the folder: empty apart from dot files (a fresh clone has those), or an earlier conversion, finished or
    not, whose parts are removed. Raises UserError for any other."""
    out_dir.mkdir(parents=True, exist_ok=True)
    if (out_dir / CARD_FILE).exists():
        card = Card.read(out_dir / CARD_FILE)
        (out_dir / CARD_FILE).unlink()
        for entry in card.parts.values():
            (out_dir / Path(entry["file"]).name).unlink(missing_ok=True)
    elif (out_dir / _UNFINISHED).exists():
        for part in PARTS:
            (out_dir / f"{part}.safetensors").unlink(missing_ok=True)
    elif any(not path.name.startswith(".") for path in out_dir.iterdir()):
        raise UserError(f"{out_dir} is not empty; give a new folder with --out.")


def _save(state_dict: StateDict, path: Path) -> None:
    """Atomically; the tensors are written from where they are, without a copy of the whole in memory."""
    unfinished = partial_path(path)
    try:
        unfinished.touch()
        rights = unfinished.stat().st_mode  # those of new files here; safetensors' own would let no other user read it
        safetensors.torch.save_file({key: value.contiguous() for key, value in state_dict.items()}, unfinished)
        unfinished.chmod(rights)
        unfinished.replace(path)
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None
    finally:
        unfinished.unlink(missing_ok=True)


def _card(model: ModelFile, parts: Sequence[str], image_size: int | None) -> Card:
    """The card of a model with these parts, whose files are not written yet."""
    ar = model.ar_config(image_size) if {"ar", "ema"} & set(parts) else None
    tokenizer = model.tokenizer_config if model.has("tokenizer") else model.trained_with
    return Card(
        tokenizer=None if tokenizer is None else tokenizer.to_dict(),
        ar=None if ar is None else ar_fields(ar),
        image_size=model.image_size if ar is None else ar.grid_side * model.downsample,
        parts={part: {} for part in parts},
        phase=model.phase,
        steps=model.steps,
        settings=_without_local_paths(dict(model.settings)),
        run=None if model.run is None else _without_local_paths(json.loads(json.dumps(model.run))),
        source={"file": model.path.name, "sha256": model.digest, "layout": model.layout, "converted_by": __version__},
    )


def _without_local_paths(value: Any) -> Any:
    """The same with None for every absolute path: where somebody's data are stored should not be published."""
    if isinstance(value, dict):
        return {key: _without_local_paths(item) for key, item in value.items()}
    return None if isinstance(value, str) and value.startswith(("/", "~")) else value


def model_card(model: ModelFile, card: Card, repo_id: str) -> str:
    """The README of the folder: YAML front matter for the hub, what it is, how to load it, where it comes from."""
    front = yaml.safe_dump({"library_name": "gear", **_front_matter(card)}, sort_keys=False).rstrip()
    table = "\n".join(f"| `{entry['file']}` | {_MEANING[part]} |" for part, entry in card.parts.items())
    left_out = "; ".join(f"`{key}` ({why})" for key, why in model.dropped.items()) or "nothing"
    source = card.source
    return f"""---
{front}
---

# {repo_id.rpartition("/")[2]}

{_what(model, card)}

    import gear
{_usage(card, repo_id)}

| file | content |
|---|---|
{table}

Converted by gear {source["converted_by"]} from `{source["file"]}` ({source["layout"]} layout, sha256
`{source["sha256"]}`); left out: {left_out}. Back to one file in the reference layout:
`gear convert {repo_id} --to reference --out model.pt`. `config.json` holds the architecture and every file's sha256.
"""


_MEANING = {
    "vq": "tokenizer, live weights",
    "vq_ema": "tokenizer, averaged weights",
    "ar": "AR model, live weights",
    "ema": "AR model, averaged weights",
    "projectors": "projectors of the alignment loss, for further training",
    "discriminator": "discriminator, for further training",
    "null_caption": "text features of the empty caption, for guidance",
}


def _front_matter(card: Card) -> dict[str, Any]:
    if card.ar_config is None:
        return {"tags": ["image-tokenizer", "vector-quantization"]}
    task = "text-to-image" if is_text_to_image(card.ar_config) else "unconditional-image-generation"
    return {"pipeline_tag": task, "tags": ["image-generation", "autoregressive"]}


def _what(model: ModelFile, card: Card) -> str:
    lines = []
    if model.has("tokenizer"):
        lines.append(f"Image tokenizer: {tokenizer_line(model.tokenizer_config)}.")
    if card.ar_config is not None:
        lines.append(f"Autoregressive image generator: {ar_line(card.ar_config)}.")
    if card.image_size is not None:
        lines.append(f"Trained on images of {card.image_size} px{f' for {card.steps} steps' if card.steps else ''}.")
    return "\n".join(lines)


def _usage(card: Card, repo_id: str) -> str:
    lines = []
    if {"vq", "vq_ema"} & card.parts.keys():
        lines.append(f'    tokenizer = gear.load_tokenizer("{repo_id}")')
    if {"ar", "ema"} & card.parts.keys():
        lines.append(f'    ar = gear.load_ar("{repo_id}")')
    return "\n".join(lines)

"""Any diffusers pipeline as a generator, from a folder or from the hub's cache; nothing is downloaded.

    harness run --benchmark geneval --generator 'python examples/diffusers_generator.py --model DIR'
    harness run --benchmark adm --generator 'python examples/diffusers_generator.py --model DiT-XL-2-256'

Text-to-image pipelines get prompts, class-conditional ones (DiT) labels. Of the protocol, `image_size` and `cfg_scale`
are used (the latter as `guidance_scale`); temperature, top-k and top-p have no meaning here and must be off.
Every image has its own random generator, seeded from its request, on the CPU: the noise is the same on every device and
in every batch. The model itself may round differently with another --batch-size.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from harness.contract import Progress, Request, RequestSet, SampleSetWriter, SamplingProtocol, UserError, sha256_file
from harness.contract.errors import MissingAsset

_SEEDS = 2**63
"""torch.Generator takes seeds below this."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    try:
        generate(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def generate(arguments: argparse.Namespace) -> None:
    """Draw the missing images of a request set."""
    requests = RequestSet.read(arguments.requests)
    _refuse_unknown_protocol(requests.protocol)
    identity = {
        "name": "diffusers",
        "model": _identity(arguments.model),
        "steps": arguments.steps,
        "dtype": arguments.dtype,
        "negative_prompt": arguments.negative_prompt,
        "batch_size": arguments.batch_size,
    }
    writer = SampleSetWriter(arguments.out, requests, identity, arguments.form)
    shards = writer.missing()
    if shards:
        pipeline = load(arguments)
        check(pipeline, requests)
        progress = Progress(sum(map(len, shards)), "images")
        for shard in shards:
            parts = []
            for start in range(0, len(shard), arguments.batch_size):
                batch = shard.requests[start : start + arguments.batch_size]
                parts.append(draw(pipeline, batch, requests.protocol, arguments))
                progress.advance(len(batch))
            writer.write(shard, np.concatenate(parts))
    writer.finish()


def load(arguments: argparse.Namespace) -> Any:
    """The pipeline on its device."""
    from diffusers import DiffusionPipeline

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[arguments.dtype]
    try:
        pipeline = DiffusionPipeline.from_pretrained(arguments.model, torch_dtype=dtype, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise MissingAsset(
            f"{arguments.model}: no diffusers pipeline can be loaded from it ({reason}); give a folder with "
            "model_index.json, or fetch the model first with `hf download`."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return pipeline.to(device)


def check(pipeline: Any, requests: RequestSet) -> None:
    """Raise UserError when the pipeline takes labels and the requests are prompts, or vice versa."""
    takes = inspect.signature(pipeline.__call__).parameters
    wanted = "class_labels" if requests.is_class_conditional else "prompt"
    if wanted not in takes:
        kind = "class labels" if requests.is_class_conditional else "prompts"
        raise UserError(
            f"{type(pipeline).__name__} does not take {kind}, which request set {requests.benchmark!r} asks for; "
            "give another pipeline or another benchmark."
        )


@torch.inference_mode()
def draw(
    pipeline: Any, batch: Sequence[Request], protocol: SamplingProtocol, arguments: argparse.Namespace
) -> npt.NDArray[np.uint8]:
    """(n, size, size, 3) uint8 of some requests, in order."""
    takes = inspect.signature(pipeline.__call__).parameters
    options: dict[str, Any] = {
        "generator": [torch.Generator("cpu").manual_seed(request.seed % _SEEDS) for request in batch],
        "guidance_scale": protocol.cfg_scale,
        "num_inference_steps": arguments.steps,
        "output_type": "np",
    }
    if batch[0].label is not None:
        options["class_labels"] = [request.label for request in batch]
    else:
        options["prompt"] = [request.prompt for request in batch]
        options["negative_prompt"] = [arguments.negative_prompt] * len(batch)
        options["height"] = options["width"] = arguments.draw_size or protocol.image_size
    images = pipeline(**{name: value for name, value in options.items() if name in takes}).images
    return np.stack([_stored(image, protocol.image_size) for image in np.asarray(images)])


def _stored(image: npt.NDArray[np.floating[Any]], size: int) -> npt.NDArray[np.uint8]:
    """uint8 of a float image in [0, 1], at the size that is asked for."""
    levels = (255.0 * image.clip(0.0, 1.0)).round().astype(np.uint8)
    if levels.shape[:2] == (size, size):
        return levels
    return np.asarray(Image.fromarray(levels).resize((size, size), Image.Resampling.BICUBIC))


def _refuse_unknown_protocol(protocol: SamplingProtocol) -> None:
    for name, off in (("temperature", 1.0), ("top_k", 0), ("top_p", 1.0), ("cfg_interval", -1.0)):
        if getattr(protocol, name) != off:
            raise UserError(
                f"the protocol asks for {name} {getattr(protocol, name):g}, which a diffusion pipeline does not have; "
                f"run the benchmark with --protocol {name}={off:g}."
            )


def _identity(model: str) -> dict[str, str]:
    """The identity of the model: the digest of a folder's files, or a hub id."""
    folder = Path(model)
    if not folder.is_dir():
        return {"id": model}
    state = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        state.update(f"{path.relative_to(folder).as_posix()} {sha256_file(path)}\n".encode())
    return {"sha256": state.hexdigest()}


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a pipeline, or hub id that was downloaded before")
    parser.add_argument("--requests", required=True, metavar="DIR")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps (50)")
    parser.add_argument("--batch-size", type=int, default=8, help="images denoised together (8)")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", help="cpu or cuda; by default cuda where there is one")
    parser.add_argument("--negative-prompt", default="", metavar="TEXT")
    parser.add_argument("--draw-size", type=int, help="size to draw at, when it is not the protocol's")
    parser.add_argument("--form", choices=("npz", "png"), default="npz")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())

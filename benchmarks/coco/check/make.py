"""How this gold check was made: `python -m benchmarks.coco.check.make`, in the project's own environment.

The full Inception network with sparse random weights (which compress to 300 kB), a tiny CLIP, twelve pictures with
captions in two parquet files, twelve drawn images. The printed values, which `benchmark.yaml` expects, come from other
code than the scorer's: transformers' CLIP processor and SciPy's `sqrtm`; the Inception network is the scorer's own,
which the golden cases compare with the reference.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.linalg
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from harness.contract.requests import Prompt, SamplingProtocol, prompt_requests
from harness.contract.writer import SampleSetWriter
from harness.scoring.networks.inception import InceptionV3

FOLDER = Path(__file__).parent
COUNT, SIZE, NONZERO = 12, 32, 4
Array = Any


def main() -> None:
    torch.manual_seed(0)
    network, pictures = write_inception(FOLDER / "assets" / "fid-inception"), make_pictures(np.random.default_rng(1))
    captions = [f"a picture of the number {index}" for index in range(COUNT)]
    write_parquet(FOLDER / "assets" / "coco-val2017", pictures, captions)
    order = np.random.RandomState(42).permutation(COUNT)
    drawn = make_drawn(np.random.default_rng(2))
    write_samples(drawn, [captions[row] for row in order], order)
    model = write_clip(FOLDER / "assets")
    real = np.stack([cropped(pictures[row]) for row in order])
    values = {
        "fid": fid(features(network, real), features(network, drawn)),
        "clip_score": clip_score(model, drawn, [captions[row] for row in order]),
    }
    print(values)


def write_inception(folder: Path) -> InceptionV3:
    """Each filter has four weights of +-sqrt(1/2): signals keep their size, and zeros compress well."""
    network, generator = InceptionV3(), np.random.default_rng(0)
    state: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        if key.endswith("conv.weight"):
            flat = np.zeros((value.shape[0], int(np.prod(value.shape[1:]))), np.float32)
            for row in flat:
                row[generator.choice(len(row), NONZERO, replace=False)] = generator.choice([-1, 1], NONZERO) * 0.5**0.5
            state[key] = torch.from_numpy(flat.reshape(value.shape))
        else:
            ones = key.endswith(("running_var", "bn.weight"))
            state[key] = torch.ones_like(value) if ones else torch.zeros_like(value)
    network.load_state_dict(state)
    folder.mkdir(parents=True, exist_ok=True)
    packed(state, folder / "pt_inception-2015-12-05-6726825d.pth")
    return network


def packed(state: dict[str, Tensor], path: Path) -> None:
    """`torch.save`, compressed: torch reads both."""
    plain = io.BytesIO()
    torch.save(state, plain)
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as small:
        for info in archive.infolist():
            small.writestr(info.filename, archive.read(info.filename))


def make_pictures(generator: Any) -> list[Image.Image]:
    """Smooth fields of different sizes and aspects."""
    sizes = [(48, 40), (33, 64), (32, 32), (57, 57)]
    return [field(generator, *sizes[index % len(sizes)]) for index in range(COUNT)]


def make_drawn(generator: Any) -> Array:
    return np.stack([np.asarray(field(generator, SIZE, SIZE)) for _ in range(COUNT)])


def field(generator: Any, width: int, height: int) -> Image.Image:
    small = generator.uniform(0, 255, (4, 4, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def cropped(image: Image.Image) -> Array:
    """Short side to SIZE, long side rounded, bicubic, centre crop: the published transform, written out."""
    width, height = image.size
    scale = SIZE / min(width, height)
    image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return np.asarray(image)[top : top + SIZE, left : left + SIZE]


def write_parquet(folder: Path, pictures: list[Image.Image], captions: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    half = COUNT // 2
    for part, rows in enumerate((slice(0, half), slice(half, COUNT))):
        cells = [{"bytes": png(image), "path": None} for image in pictures[rows]]
        image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(cells, image_type), "caption": captions[rows]})
        pq.write_table(table, folder / f"val-{part:05d}-of-00002.parquet")


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def write_samples(drawn: Array, captions: list[str], order: Array) -> None:
    requests = prompt_requests(
        "coco",
        1,
        SamplingProtocol(image_size=SIZE, cfg_scale=1.5),
        prompts=(Prompt(item=f"{row:06d}", text=text) for row, text in zip(order, captions, strict=True)),
        layout="{index:06d}.png",
    )
    writer = SampleSetWriter(FOLDER / "samples", requests, generator={"name": "made for the gold check"})
    for shard in writer.missing():
        writer.write(shard, drawn[shard.start : shard.stop])
    writer.finish()


def write_clip(folder: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """A CLIP of two narrow layers per tower, and a vocabulary of single letters."""
    letters = sorted(set("abcdefghijklmnopqrstuvwxyz0123456789"))
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    narrow = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = len(words) - 1
    config = CLIPConfig(
        text_config={
            **narrow,
            "vocab_size": len(words),
            "eos_token_id": end,
            "bos_token_id": end - 1,
            "pad_token_id": end,
        },
        vision_config={**narrow, "image_size": 224, "patch_size": 32},
        projection_dim=16,
    )
    model = CLIPModel(config).eval()
    for name in ("config", "weights", "vocab", "merges"):
        (folder / f"clip-vit-b32-{name}").mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder / "clip-vit-b32-weights")
    (folder / "clip-vit-b32-weights" / "config.json").rename(folder / "clip-vit-b32-config" / "config.json")
    vocabulary = {word: index for index, word in enumerate(words)}
    vocab, merges = folder / "clip-vit-b32-vocab" / "vocab.json", folder / "clip-vit-b32-merges" / "merges.txt"
    vocab.write_text(json.dumps(vocabulary))
    merges.write_text("#version: 0.2\n")
    return model, CLIPTokenizer(vocab=str(vocab), merges=str(merges))


def features(network: InceptionV3, images_u8: Array) -> Array:
    batch = torch.from_numpy(images_u8.copy()).permute(0, 3, 1, 2) / 255.0
    return np.concatenate([network(part).numpy() for part in batch.split(4)])


def fid(a: Array, b: Array) -> float:
    """As pytorch-fid has it, with its nudge for singular products."""
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    nudged = [covariance + 1e-6 * np.eye(len(covariance)) for covariance in covariances]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    if not np.isfinite(root).all():
        root = scipy.linalg.sqrtm(nudged[0] @ nudged[1])
    difference = a.mean(axis=0) - b.mean(axis=0)
    return float(difference @ difference + np.trace(covariances[0]) + np.trace(covariances[1])
                 - 2.0 * np.trace(np.real(root)))  # fmt: skip


@torch.inference_mode()
def clip_score(clip: tuple[CLIPModel, CLIPTokenizer], images_u8: Array, captions: list[str]) -> float:
    model, tokenizer = clip
    text = tokenizer(captions, return_tensors="pt", padding=True, truncation=True, max_length=77)
    pixels = CLIPImageProcessor()(images=[Image.fromarray(image) for image in images_u8], return_tensors="pt")
    output = model(input_ids=text["input_ids"], attention_mask=text["attention_mask"], **pixels)
    cosines = torch.nn.functional.cosine_similarity(output.image_embeds, output.text_embeds)
    return 100.0 * float(cosines.mean())


if __name__ == "__main__":
    main()

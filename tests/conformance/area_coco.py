"""Golden area `coco`: selection out of parquet files, the transform, FID, CLIPScore, and the FID network."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.coco.evaluation import fid
from benchmarks.coco.interface import Options
from benchmarks.coco.scorer import real_batches
from harness.contract.images import to_square
from harness.metrics.clip_score import clip_score, cosines
from harness.scoring.coco import CocoParquet, CocoSelection, selection
from tests.conformance.case import Result, Unsupported, check, check_equal, grid_of, load_arrays, load_case, pooled

AREA = "coco"

Meta = dict[str, Any]
Arrays = dict[str, np.ndarray]


def run(path: Path) -> list[Result] | None:
    meta, arrays = load_case(path)
    if "parquet_dir" in meta:
        return [*check_selection(meta, arrays, path.parent)]
    if "clip_score" in meta:
        return [*check_scores(meta, path.parent)]
    if "fill_rule" in meta:
        return [*check_network(meta, arrays)]
    if "expected" in meta:
        raise Unsupported("a kind of case this checker does not know")
    return None


def check_scores(meta: Meta, folder: Path) -> Iterator[Result]:
    for case in meta["fid"]:
        arrays = load_arrays(folder / case["file"])
        few = min(case["n_ref"], case["n_gen"]) < case["dim"]
        got = fid(arrays["features_ref"], arrays["features_gen"])
        yield check(case["file"], got, case["expected_fid"], atol=0.0, rtol=1e-3 if few else 1e-5)
    arrays, wanted = load_arrays(folder / meta["clip_score"]["file"]), meta["clip_score"]["expected"]
    each = cosines(arrays["image_embeds"], arrays["text_embeds"])
    yield check("sum of cosines", each.sum(), wanted["sum_cosine"], atol=0.0, rtol=1e-5)
    yield check("clip_score", clip_score(each), wanted["clip_score"], atol=0.0, rtol=1e-5)
    yield check_equal("count", len(each), wanted["count"])
    yield check_equal("negative cosines", int((each < 0).sum()), meta["clip_score"]["negative_cosines"])


def check_selection(meta: Meta, arrays: Arrays, folder: Path) -> Iterator[Result]:
    """Captions in order, the real images as the scorer reads them, drawn ones brought to size, and the distance."""
    expected, size = meta["expected"], meta["image_size"]
    dataset = CocoParquet(folder / meta["parquet_dir"])
    captions = dataset.captions()
    options = Options(num_samples=meta["num_samples"], selection_seed=meta["seed"], image_size=size, batch_size=7)
    rows = selection(len(dataset), options.num_samples, options.selection_seed)
    yield check_equal("rows", len(dataset), meta["total_rows"])
    yield check_equal("captions", [captions[row] for row in rows], expected["captions"])
    more = expected["captions_when_more_requested_than_present"]
    all_rows = selection(len(dataset), 10 * len(dataset), more["seed"])
    first = next(value for name, value in more.items() if name.startswith("first_"))
    yield check_equal("captions, all", [captions[row] for row in all_rows[: len(first)]], first)
    yield check_equal("rows, all", len(all_rows), more["count"])

    real = np.empty_like(arrays["gt_processed"])
    for places, images_u8 in real_batches(dataset, rows, options):
        real[places] = images_u8
    drawn = np.stack([brought_to_size(arrays[f"generated_raw_{i}"], size) for i in range(len(rows))])
    yield check_equal("real images", real, arrays["gt_processed"])
    online = CocoSelection(dataset, meta["num_samples"], meta["seed"])
    yield check_equal("captions of the online monitor", online.captions, expected["captions"])
    yield check_equal("real images of the online monitor", online.images(0, len(rows), size), arrays["gt_processed"])
    yield check_equal("drawn images", drawn, arrays["generated_processed"])
    features = [stub_features(images, arrays["projection"]) for images in (real, drawn)]
    yield check("features of the real", features[0], arrays["gt_features"], atol=1e-5)
    yield check("features of the drawn", features[1], arrays["generated_features"], atol=1e-5)
    yield check("fid", fid(*features), expected["fid_with_stub_features"], atol=0.0, rtol=1e-3)


def brought_to_size(image_u8: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(to_square(Image.fromarray(image_u8), size))


def stub_features(images_u8: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> average pooled to a square grid, flattened channel first, projected."""
    images_01 = images_u8.astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255.0)
    grid = grid_of([], len(projection) // images_01.shape[1])
    return pooled(images_01, grid).reshape(len(images_u8), -1) @ projection


# --- the network -----------------------------------------------------------------------------------------------------


def check_network(meta: Meta, arrays: Arrays) -> Iterator[Result]:
    """The scorer's FID network with the recipe's weights: features of every input, and the blocks' channel means."""
    import torch

    from harness.scoring.networks.inception import InceptionV3

    network = InceptionV3()
    weights = {key: torch.from_numpy(filled(key, shape, meta["seed"])) for key, shape in meta["state_dict"].items()}
    network.load_state_dict(weights)
    relative, share = (float(number) for number in re.findall(r"\d[\d.e-]*", meta["tolerance"])[:2])
    with torch.inference_mode():
        blocks = network.blocks(torch.from_numpy(arrays["input_0"]))
        for index in range(sum(name.startswith("input_") for name in arrays)):
            wanted = arrays[f"pool_{index}"]
            got = network(torch.from_numpy(arrays[f"input_{index}"]))
            yield check(f"pool_{index}", got, wanted, atol=share * float(np.abs(wanted).max()), rtol=relative)
    for index, block in enumerate(blocks):
        wanted = arrays[f"block{index}_channel_mean_0"]
        limit = share * float(np.abs(wanted).max())
        yield check(f"block {index}", block.mean(dim=(2, 3)), wanted, atol=limit, rtol=relative)


def filled(key: str, shape: list[int], seed: int) -> np.ndarray:
    """The fill rule of the case: one fresh generator per key, float64, then cast."""
    generator = np.random.RandomState(zlib.crc32(key.encode()) ^ seed)
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_var"):
        values = generator.uniform(0.5, 1.5, shape)
    elif key.endswith(("running_mean", "bias")):
        values = 0.1 * generator.standard_normal(shape)
    elif key.endswith("bn.weight"):
        values = 1.0 + 0.1 * generator.standard_normal(shape)
    else:
        values = generator.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    return values.astype(np.float32)

"""Golden cases of other sizes than the committed ones, made by arithmetic of their own: the checkers read them too."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from safetensors.numpy import save_file

from tests.conformance import area_coco, area_losses, area_recon, area_repa, area_sampling
from tests.conformance.case import Result, Unsupported, formula_value, grid_of, load_json, pooled

GOLDEN = Path(__file__).parents[1] / "golden"
Arrays = dict[str, np.ndarray]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def write_case(folder: Path, meta: dict[str, Any], arrays: Arrays) -> Path:
    (folder / "case.json").write_text(json.dumps(meta))
    save_file({name: np.array(array, order="C") for name, array in arrays.items()}, folder / "case.safetensors")
    return folder / "case.json"


def assert_met(results: list[Result] | None, *, least: int) -> None:
    assert results is not None and len(results) >= least
    assert not [result for result in results if not result.passed]


def assert_notices(results: list[Result] | None, name: str) -> None:
    """A checker that reads a case must also see when one of its numbers is wrong."""
    assert results is not None
    assert name in {result.name for result in results if not result.passed}


# --- repa ---


def raw_image_case() -> tuple[dict[str, Any], Arrays]:
    """Another formula, stride and corner, for a teacher that reads its images as they are."""
    size, mean, std = 256, np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    image = np.empty((3, size, size))
    for c in range(3):
        for y in range(size):
            for x in range(size):
                image[c, y, x] = (11 * x + 7 * y + 5 * c * 13 + (x * y) % 89 + 7) % 256
    normed = ((image / 255.0 - mean[:, None, None]) / std[:, None, None])[None]
    meta = {
        "area": "repa",
        "formula_image": "uint8 (1,3,S,S): value[c,y,x] = (11 x + 7 y + 5 c 13 + (x y mod 89) + 7) mod 256",
        "tolerance": {"atol": 2e-5, "rtol": 1e-5},
        "cases": [
            {
                "tensor": "out.big.dinov3",
                "encoder": "dinov3",
                "input": f"formula image, size {size}",
                "output_size": [1, 3, size, size],
                "stored": "[:, :, ::9, ::9] plus .corner",
                "mean": float(normed.mean()),
                "std": float(normed.std(ddof=1)),
            }
        ],
    }
    arrays = {"out.big.dinov3": normed[:, :, ::9, ::9], "out.big.dinov3.corner": normed[:, :, :5, :7]}
    return meta, {name: array.astype(np.float32) for name, array in arrays.items()}


def test_the_formula_image_of_a_case_is_the_one_that_its_json_states(tmp_path: Path) -> None:
    meta, arrays = raw_image_case()
    assert_met(area_repa.run(write_case(tmp_path, meta, arrays)), least=5)
    meta["formula_image"] = meta["formula_image"].replace("+ 7)", "+ 3)")
    assert_notices(area_repa.run(write_case(tmp_path, meta, arrays)), "out.big.dinov3")


@pytest.mark.parametrize(
    ("formula", "value"), [("(37 x + 3) mod 7", (37 * 5 + 3) % 7), ("2 (x y mod 4) - y", 2 * (15 % 4) - 3)]
)
def test_a_formula_is_sums_products_and_remainders(formula: str, value: int) -> None:
    assert formula_value(formula, {"x": 5, "y": 3}) == value


@pytest.mark.parametrize("formula", ["x ** 2", "__import__", "x / 2", "x +"])
def test_a_formula_of_anything_else_is_not_evaluated(formula: str) -> None:
    with pytest.raises(Unsupported, match="formula"):
        formula_value(formula, {"x": 5})


def test_prefixes_of_any_length_and_any_share_of_the_mean_are_read_from_the_names(tmp_path: Path) -> None:
    draw, limits = rng(1), {"atol": 1e-5, "rtol": 1e-4}
    batch, tokens, dim, width, prefix = 2, 9, 6, 8, 5

    def projected(hidden: np.ndarray) -> np.ndarray:
        for layer in (0, 2, 4):
            hidden = hidden @ weights[f"w.projs.0.{layer}.weight"].T + weights[f"w.projs.0.{layer}.bias"]
            hidden = hidden / (1.0 + np.exp(-hidden)) if layer < 4 else hidden
        return hidden

    sizes = {0: (width, dim), 2: (width, width), 4: (7, width)}
    weights = {f"w.projs.0.{layer}.weight": 0.3 * draw.normal(size=size) for layer, size in sizes.items()}
    weights |= {f"w.projs.0.{layer}.bias": draw.normal(size=size[0]) for layer, size in sizes.items()}
    target, pred = draw.normal(size=(2, batch, tokens, 7))
    hidden, longer = draw.normal(size=(batch, tokens, dim)), draw.normal(size=(batch, tokens + prefix - 1, dim))

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    def loss(rows: np.ndarray) -> np.ndarray:
        return np.asarray(-(unit(rows) * unit(target)).sum(-1).mean())

    cosine = (unit(pred) * unit(target)).sum(-1, keepdims=True)
    gradient = -(unit(target) - cosine * unit(pred)) / np.linalg.norm(pred, axis=-1, keepdims=True) / (batch * tokens)
    arrays = {
        **weights,
        "in.target_0": target,
        "in.pred_0": pred,
        "in.hidden": hidden,
        f"in.hidden_cls{prefix}": longer,
        "grad.pred_0": gradient,
        "out.loss": loss(pred),
        "out.projected_0": projected(hidden),
        "out.projected_loss": loss(projected(hidden)),
        f"out.projected_cls{prefix}_0": projected(longer[:, prefix - 1 :]),
    }
    arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    assert_met(area_repa.run(write_case(tmp_path, {"area": "repa", "tolerance": limits}, arrays)), least=5)

    z = draw.normal(size=(2, 8, 3))
    z[:, :, 1] = 4.0
    centred = z - 0.25 * z.mean(axis=1, keepdims=True)
    name = "out.constant_channel_demean_alpha0.25"
    cases = [{"tensor": "out.z", "mode": "none", "alpha": 1.0}]
    spatial = {"in.z": z, "out.z": z, "in.z_constant_channel": z, name: centred}
    spatial = {key: array.astype(np.float32) for key, array in spatial.items()}
    meta = {"area": "repa", "tolerance": limits, "cases": cases}
    assert_met(area_repa.run(write_case(tmp_path, meta, spatial)), least=2)


# --- reconstruction metrics of images that are not square ---


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root))


def cells(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Means over equal windows, (N, C * rows * columns), channel first."""
    n, c, height, width = images.shape
    windows = images.reshape(n, c, rows, height // rows, columns, width // columns)
    return windows.mean(axis=(3, 5)).reshape(n, -1)


def plain_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Windows of 7 x 7 one after the other, sample variances, mean over windows and channels."""
    values = []
    for a, b in zip(x.astype(np.float64), y.astype(np.float64), strict=True):
        for top in range(a.shape[0] - 6):
            for left in range(a.shape[1] - 6):
                p, q = (plane[top : top + 7, left : left + 7] for plane in (a, b))
                covariance = ((p - p.mean()) * (q - q.mean())).sum() / 48
                luminance = (2 * p.mean() * q.mean() + 1e-4) / (p.mean() ** 2 + q.mean() ** 2 + 1e-4)
                values.append(luminance * (2 * covariance + 9e-4) / (p.var(ddof=1) + q.var(ddof=1) + 9e-4))
    return float(np.mean(values))


def distances(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    mse = np.square(first - second).mean(axis=(1, 2, 3))
    return {
        "l1": np.abs(first - second).mean(axis=(1, 2, 3)),
        "psnr": 10.0 * np.log10(1.0 / mse),
        "ssim": np.array([plain_ssim(a, b) for a, b in zip(first, second, strict=True)]),
    }


def batch_means(values: np.ndarray, size: int) -> float:
    return float(np.mean([values[start : start + size].mean() for start in range(0, len(values), size)]))


def pairs(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8, noise of the reconstruction, and both in [0, 1]."""
    draw = rng(2)
    images = draw.integers(0, 256, (10, 3, height, width), dtype=np.uint8)
    noise = (0.1 * draw.normal(size=images.shape)).astype(np.float32)
    recon = images / 127.5 - 1.0 + noise
    return images, noise, images / 255.0, (np.clip(recon, -1.0, 1.0) + 1.0) / 2.0


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 3)])
def test_reconstruction_metrics_of_wide_images_with_any_grid(rows: int, columns: int, tmp_path: Path) -> None:
    images, noise, first, second = pairs(12, 18)
    projection = rng(3).normal(size=(3 * rows * columns, 4))
    values = distances(first, second)
    expected = {
        "vq_val/l1": batch_means(values["l1"], 4),
        "vq_val/psnr": batch_means(values["psnr"], 4),
        "vq_val/ssim": float(values["ssim"].mean()),
        "vq_val/fid": frechet(cells(first, rows, columns) @ projection, cells(second, rows, columns) @ projection),
    }
    meta = {
        "what": f"stub features: adaptive average pool to {rows}x{columns} of the image, flatten CHW, times projection",
        "batch_size": 4,
        "expected": expected,
        "tolerance": {"l1": "rel 1e-5", "psnr": "rel 1e-5", "ssim": "abs 1e-5", "fid": "rel 1e-3"},
    }
    arrays = {"images": images, "recon_noise": noise, "projection": projection.astype(np.float32)}
    assert_met(area_recon.run(write_case(tmp_path, meta, arrays)), least=4)


def test_the_other_format_of_reconstruction_metrics_reads_grid_limits_and_exact_images(tmp_path: Path) -> None:
    images, noise, _, _ = pairs(12, 18)
    noise[4] = 0.0
    reconstructions = (images / 127.5 - 1.0 + noise).astype(np.float32)
    first, second = images / 255.0, (np.clip(reconstructions.astype(np.float64), -1.0, 1.0) + 1.0) / 2.0
    matrix = rng(4).uniform(size=(5, 3 * 2 * 6))
    with np.errstate(divide="ignore"):
        values = distances(first, second)
    values["psnr"][4] = min(values["psnr"][4], 120.0)
    features = [np.maximum(cells(x, 2, 6) @ matrix.T, 0.0) for x in (first, second)]
    meta = {
        "notes": ["f = relu(W @ flatten(adaptive_avg_pool2d(x01, 2x6))) with W = input/feature_matrix"],
        "batch_size": 4,
        "values": {
            "vq_val/l1": batch_means(values["l1"], 4),
            "vq_val/psnr": batch_means(values["psnr"], 4),
            "vq_val/ssim": float(values["ssim"].mean()),
            "vq_val/fid": frechet(*features),
        },
        "sample_weighted_values": {name: float(rows.mean()) for name, rows in values.items()},
        "tolerance": {
            "l1": "2e-6",
            "psnr": "1e-3 dB (image 4: only check that it is above 90 dB)",
            "ssim": "1e-4 (float32 SSIM)",
            "fid": "1e-4 relative to max(1, fid)",
        },
    }
    arrays = {"input/images_uint8": images, "input/reconstructions": reconstructions, "input/feature_matrix": matrix}
    arrays |= {f"per_image/{name}": rows for name, rows in values.items()}
    arrays = {name: a if a.dtype == np.uint8 else a.astype(np.float32) for name, a in arrays.items()}
    assert_met(area_losses.run(write_case(tmp_path, meta, arrays)), least=11)


def test_windows_of_a_pooled_grid_overlap_where_a_side_is_no_multiple() -> None:
    image = np.arange(35.0).reshape(1, 1, 5, 7)
    grid = pooled(image, (2, 3))
    assert grid.shape == (1, 1, 2, 3)
    assert grid[0, 0, 1, 2] == image[0, 0, 2:5, 4:7].mean()
    assert grid[0, 0, 0, 1] == image[0, 0, 0:3, 2:5].mean()


def test_a_grid_is_what_the_case_says_else_a_square() -> None:
    assert grid_of(["pool to 2x8 of the [0,1] image"], 16) == (2, 8)
    assert grid_of([], 16) == (4, 4)
    with pytest.raises(Unsupported, match="12 pooled cells"):
        grid_of(["in 3x3"], 12)


# --- the loss head with losses that a family does not have ---


@pytest.mark.parametrize(
    "absent",
    [
        {"vq_loss": None, "entropy_argument": "(entropy_total_scaled, sample_entropy, avg_entropy)"},
        {"vq_loss_argument": "None", "entropy_argument": "None (the family has no such term)"},
        {"entropy": None},
    ],
    ids=["no vq loss", "neither", "no entropy"],
)
def test_a_variant_may_pass_none_for_a_loss(absent: dict[str, Any], tmp_path: Path) -> None:
    """Perceptual and adversarial terms are off, so the total is L1 + 0.7 * what is passed."""
    draw = rng(5)
    x, recon = draw.uniform(-1, 1, (2, 2, 3, 16, 24)).astype(np.float32)
    given = {"vq_loss": 0.5, "commit_loss": 0.25, "entropy_total_scaled": -0.125, "sample_entropy": 1.5}
    given["avg_entropy"] = 2.0
    if "vq_loss" in absent or "vq_loss_argument" in absent:
        given["vq_loss"] = 0.0
    if "entropy" in absent or absent.get("entropy_argument", "").startswith("None"):
        given |= {"entropy_total_scaled": 0.0, "sample_entropy": 0.0, "avg_entropy": 0.0}
    l1 = float(np.abs(x.astype(np.float64) - recon).mean())
    quantizer = 0.7 * (given["vq_loss"] + given["commit_loss"] + given["entropy_total_scaled"])
    logs = {
        "total_loss": l1 + quantizer,
        "reconstruction_loss": l1,
        "perceptual_loss": 0.0,
        "quantizer_loss": quantizer,
        "vq_loss": given["vq_loss"],
        "commit_loss": given["commit_loss"],
        "entropy_loss": given["entropy_total_scaled"],
        "sample_entropy": given["sample_entropy"],
        "avg_entropy": given["avg_entropy"],
        "weighted_gan_loss": 0.0,
        "gan_loss": 0.0,
        "discriminator_factor": 0.0,
        "d_weight": 0.1,
    }
    stored: Arrays = {f"odd/gen/dict/{name}": np.float32(value) for name, value in logs.items()}  # type: ignore[misc]
    stored |= {"odd/gen/total": np.float32(logs["total_loss"]), "odd/gen/grad_recon": np.sign(recon - x) / x.size}  # type: ignore[dict-item]
    committed, arrays = committed_loss_head()
    inputs = {"vq_loss": 0.5, "commit_loss": 0.25, "entropy_total_scaled": -0.125, "sample_entropy": 1.5}
    arrays |= {f"input/{name}": np.float32(value) for name, value in {**inputs, "avg_entropy": 2.0}.items()}  # type: ignore[misc]
    arrays |= {"input/x": x, "input/recon": recon, **{k: np.asarray(v, np.float32) for k, v in stored.items()}}
    settings = {"quantizer_weight": 0.7, "perceptual_weight": 0.0, "discriminator_start": 100}
    meta = {
        "ndf": committed["ndf"],
        "hash_weights_lpips": committed["hash_weights_lpips"],
        "variants": {"odd": {"config_overrides": settings, "global_step": 3, **absent}},
        "tolerance": {"per_tensor": {name: {"atol": 1e-6} for name in stored}},
    }
    path = write_case(tmp_path, meta, {name: np.asarray(array) for name, array in arrays.items()})
    assert_met(area_losses.run(path), least=15)


def committed_loss_head() -> tuple[dict[str, Any], Arrays]:
    """Of the committed case: its description, and the state of its discriminator."""
    from tests.conformance.case import load_arrays

    path = GOLDEN / "losses" / "loss_head.json"
    arrays = load_arrays(path.with_suffix(".safetensors"))
    return copy.deepcopy(load_json(path)), {k: v for k, v in arrays.items() if k.startswith("discriminator/")}


# --- the rest ---


def test_stand_in_features_of_coco_take_any_square_grid_and_size() -> None:
    images_u8 = rng(6).integers(0, 256, (4, 15, 15, 3), dtype=np.uint8)
    projection = rng(7).normal(size=(3 * 25, 6)).astype(np.float32)
    wanted = cells(images_u8.transpose(0, 3, 1, 2) / 255.0, 5, 5) @ projection
    np.testing.assert_allclose(area_coco.stub_features(images_u8, projection), wanted, atol=1e-4)


def test_labels_are_drawn_from_as_many_classes_as_the_case_says(tmp_path: Path) -> None:
    import torch

    decoded = np.zeros((1, 3, 4, 4), np.float32)
    levels = np.full((1, 4, 4, 3), 128, np.uint8)
    generator = torch.Generator().manual_seed(5 * 2 + 1)
    labels = torch.randint(0, 10, (8,), generator=generator)[None].numpy()
    arrays = {
        "in.decoded": decoded,
        "out.uint8_nhwc": levels,
        "out.resized_float": decoded,
        "out.resized_uint8_nhwc": levels,
        "out.coco_path_uint8_nhwc": levels,
        "out.labels_seed5_world2_rank1": labels,
    }
    meta = {"eval_size": 4, "num_classes": 10, "tolerance": {"resized_float": {"atol": 1e-5}}}
    assert_met(area_sampling.run(write_case(tmp_path, meta, arrays)), least=5)

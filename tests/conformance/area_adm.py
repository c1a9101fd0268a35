"""Golden area `adm`: the evaluator's arithmetic, and the whole scorer on a tiny graph in its locked environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adm.interface import Options
from benchmarks.adm.torch_graph import TorchGraph
from harness.contract.record import ScoreRecord
from harness.metrics.frechet import frechet_distance, statistics
from harness.metrics.inception_score import class_probabilities, inception_score
from harness.metrics.prdc import containment, half_precision_squared_distances, neighbour_radii
from tests.conformance.case import Result, Unsupported, check, load_case

AREA = "adm"

Meta = dict[str, Any]
Arrays = dict[str, np.ndarray]

ROOT = Path(__file__).parents[2]
POOL_WIDTH = 2048
BACKENDS_AGREE = 1e-4
FLOAT16_UNITS = 4


def run(path: Path) -> list[Result] | None:
    meta, arrays = load_case(path)
    if "pool_ref" in arrays:
        return check_arithmetic(meta, arrays)
    if {"graph", "reference", "sample", "expected"} <= set(meta):
        return check_scorer(meta, path.parent)
    if "expected" in meta:
        raise Unsupported("a kind of case this checker does not know")
    return None


# --- arithmetic ------------------------------------------------------------------------------------------------------


def check_arithmetic(meta: Meta, arrays: Arrays) -> list[Result]:
    """The `math_*` cases: features and probabilities in, the five metrics and the manifolds' details out."""
    expected, k = meta["expected"], meta["manifold_k"]
    blocks: dict[str, Any] = {
        "distance": half_precision_squared_distances,
        "row_block": meta["row_batch_size"],
        "column_block": meta["col_batch_size"],
    }
    reference, sample = arrays["pool_ref"], arrays["pool_sample"]
    radii = {"radii_ref": neighbour_radii(reference, k, **blocks), "radii_sample": neighbour_radii(sample, k, **blocks)}
    inside = containment(reference, sample, *radii.values(), closed=True, **blocks)
    values = {
        "fid": distance_of(reference, sample),
        "sfid": distance_of(arrays["spatial_ref"], arrays["spatial_sample"]),
        "inception_score": inception_score(arrays["softmax"], split_size=meta["is_split_size"]),
        "precision": inside.precision,
        "recall": inside.recall,
    }
    results = [check_value(name, values[name], meta) for name in expected]

    in_distances = distance_tolerance(meta, reference, sample)
    for name, got in radii.items():
        results.append(check(name, got[:, None], arrays[name], **in_distances))
    if "distance_ref_sample" in arrays:
        got = half_precision_squared_distances(reference, sample)
        results.append(check("distance_ref_sample", got, arrays["distance_ref_sample"], **in_distances))

    shares = {
        "sample_in_ref_manifold": ("precision", inside.reference_balls > 0),
        "ref_in_sample_manifold": ("recall", inside.sample_balls > 0),
    }
    for name, (metric, flags) in shares.items():
        rel, absolute = tolerance_of(meta["tolerance"][metric])
        # Single flags may differ between builds of the reference, so their means are compared.
        results.append(check(f"mean {name}", flags.mean(), arrays[name].mean(), rtol=rel, atol=absolute))

    fitted = statistics(reference, mean_dtype=np.float32)
    for name, got in (("mu_pool_ref", fitted.mean), ("sigma_pool_ref", fitted.covariance)):
        if name in arrays:
            results.append(check(name, got, arrays[name], atol=1e-6 * float(np.abs(arrays[name]).max())))
    return results


def distance_of(reference: np.ndarray, sample: np.ndarray) -> float:
    fitted = (statistics(features, mean_dtype=np.float32) for features in (reference, sample))
    return frechet_distance(*fitted).value


def distance_tolerance(meta: Meta, reference: np.ndarray, sample: np.ndarray) -> dict[str, float]:
    """Four float16 spacings at the largest |x|^2 of both sets; on the float32 path the relative limit of the case."""
    if meta["distance_path"].startswith("float32"):
        rel, _ = tolerance_of(meta["tolerance"]["radii"].partition(";")[2])
        return {"rtol": rel, "atol": 0.0}
    largest = max(float(np.square(features).sum(axis=1).max()) for features in (reference, sample))
    return {"atol": FLOAT16_UNITS * float(np.spacing(np.float16(largest)))}


# --- end to end ------------------------------------------------------------------------------------------------------


def check_scorer(meta: Meta, folder: Path) -> list[Result]:
    """The `end_to_end_*` cases: `harness score adm`, on archives as they are, in the environment of the lock file;
    and the same graph in PyTorch, here."""
    files = folder / meta["graph"].split()[0], folder / meta["reference"], folder / meta["sample"]
    values = {metric.name: metric.value for metric in score(*files).metrics}
    few = min(meta["ref_shape"][0], meta["sample_shape"][0]) < POOL_WIDTH
    results = [check_value(name, values["gfid" if name == "fid" else name], meta, few) for name in meta["expected"]]
    in_torch = score_in_torch(*files)
    return results + [
        check(f"{name}, torch", in_torch[name], float(values[name] or np.nan), rtol=BACKENDS_AGREE, atol=0.0)
        for name in ("gfid", "sfid", "inception_score")
    ]


def score_in_torch(graph: Path, reference: Path, sample: Path) -> dict[str, float]:
    network = TorchGraph(graph, device="cpu")
    images = [np.load(path)["arr_0"] for path in (reference, sample)]
    of_reference, of_samples = (features(network, images_u8) for images_u8 in images)
    probabilities = class_probabilities(of_samples[0], network.classifier)
    return {
        "gfid": distance_of(of_reference[0], of_samples[0]),
        "sfid": distance_of(of_reference[1], of_samples[1]),
        "inception_score": inception_score(probabilities, split_size=Options().is_split_size),
    }


def features(network: TorchGraph, images_u8: np.ndarray) -> list[np.ndarray]:
    parts = [network.features(images_u8[start : start + 64]) for start in range(0, len(images_u8), 64)]
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def score(graph: Path, reference: Path, sample: Path) -> ScoreRecord:
    with tempfile.TemporaryDirectory(prefix="conformance-adm-") as scratch:
        arguments = ["score", "adm", "--samples", str(sample), "--runtime", "venv", "--name", "case"]
        assets = {"adm-inception-graph": graph, "adm-imagenet256-reference": reference}
        for name, path in assets.items():
            arguments += ["--asset", f"{name}={path}"]
        outcome = subprocess.run(
            [sys.executable, "-m", "harness", *arguments, "--runs", scratch],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if outcome.returncode != 0:
            raise RuntimeError(f"the scorer ended with {outcome.returncode}: {outcome.stderr[-2000:]}")
        (score_file,) = Path(scratch).glob("case/steps/*score-adm/output/score.json")
        return ScoreRecord.read(score_file.parent)


# --- tolerances ------------------------------------------------------------------------------------------------------


def check_value(name: str, got: float | None, meta: Meta, few: bool = False) -> Result:
    """One metric against its value, or against the nearest of the values that builds of the reference give."""
    wanted = [meta["expected"][name]]
    if name in ("precision", "recall"):
        wanted = [values[name] for values in meta["precision_recall_by_backend"].values()]
    value = float("nan") if got is None else float(got)
    nearest = min(wanted, key=lambda answer: abs(answer - value))
    rel, absolute = tolerance_of(meta["tolerance"][name], few)
    return check(name, value, nearest, rtol=rel, atol=absolute)


def tolerance_of(text: str, few: bool = False) -> tuple[float, float]:
    """(relative, absolute) out of a sentence such as "rel 1e-4, abs 1e-4".

    "rel 1e-3 (few), rel 1e-4 (full_rank)" gives two: the wide one is for fewer images than feature dimensions.
    """
    found: dict[str, list[float]] = {"rel": [], "abs": []}
    for kind, number in re.findall(r"\b(rel|abs) ([0-9.]+(?:e-?[0-9]+)?)", text):
        found[kind].append(float(number))
    if not any(found.values()):
        raise Unsupported(f"no tolerance can be read from {text!r}")
    choose = max if few else min
    return choose(found["rel"], default=0.0), choose(found["abs"], default=0.0)

"""Golden area `gpic`: the evaluator's arithmetic with its random draws, DINOv2's input transform, the prompt list."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpic.evaluation import Reference, evaluate
from benchmarks.gpic.interface import Options
from benchmarks.gpic.prompts import build_prompts
from harness.contract.files import read_json_lines
from harness.metrics.distances import euclidean_distances
from harness.metrics.mmd import mmd_of, polynomial_mmd
from harness.metrics.prdc import neighbour_radii, prdc
from tests.conformance.case import Result, Unsupported, check, check_equal, load_arrays, load_case

AREA = "gpic"

Meta = dict[str, Any]

EVERY_NTH = re.compile(r"output_(\d+)_every_(\d+)(?:st|nd|rd|th)")


def run(path: Path) -> list[Result] | None:
    meta, arrays = load_case(path)
    if "prdc_cap" in meta:
        return check_evaluation(meta, path)
    if any(EVERY_NTH.fullmatch(name) for name in arrays):
        return check_transform(arrays, float(meta["tolerance"]))
    if any(str(name).endswith(".tar") for name in meta.get("inputs", [])):
        return check_prompts(meta, path.parent)
    if "expected" in meta:
        raise Unsupported("a kind of case this checker does not know")
    return None


# --- arithmetic ------------------------------------------------------------------------------------------------------


def check_evaluation(meta: Meta, path: Path) -> list[Result]:
    """Everything the evaluator reports, in the order of its draws, and the parts it is made of."""
    reference = Reference.read(path.with_name(f"{path.stem}_ref.npz"))
    sample = load_arrays(path.with_name(f"{path.stem}_sample.npz"))["features"]
    options = Options(
        prdc_k=meta["prdc_k"], prdc_cap=meta["prdc_cap"], seed=meta["numpy_legacy_seed_set_before_evaluate"]
    )
    evaluation = evaluate(sample, reference, options)
    fd = evaluation.fd
    values: dict[str, float] = {"fd": fd.value, "fd_mu": fd.mean_term, "fd_sigma": fd.covariance_term}
    if evaluation.prdc is not None and evaluation.mmd is not None:
        values |= {"mmd": evaluation.mmd, **asdict(evaluation.prdc)}
    few = min(meta["n_ref"], meta["n_sample"]) < meta["dim"]
    one_image = 1.0 / min(meta["n_ref"], meta["n_sample"], meta["prdc_cap"])
    results = [check_equal("metrics", sorted(values), sorted(meta["expected"]))]
    for name, wanted in meta["expected"].items():
        results.append(check(name, values[name], wanted, **limits(name, few, one_image)))
    if reference.embeddings is not None:
        results += check_extra(meta, reference.embeddings, sample)
        results += check_internals(path, reference.embeddings, sample)
    return results


def limits(name: str, few: bool, one_image: float) -> dict[str, float]:
    """Tolerances of the case: distances relative, PRDC within one image, MMD as with the same draws."""
    if name.startswith("fd"):
        return {"rtol": 1e-3 if few else 1e-5, "atol": 0.0}
    return {"rtol": 1e-4, "atol": 1e-6} if name == "mmd" else {"atol": one_image + 1e-9}


def check_extra(meta: Meta, embeddings: np.ndarray, sample: np.ndarray) -> list[Result]:
    """MMD of few small subsets and of the first rows, and PRDC of all rows for other numbers of neighbours."""
    extra, results = meta["extra"], []
    one_image = 1.0 / min(meta["n_ref"], meta["n_sample"])
    for name, wanted in extra.items():
        if drawn := re.fullmatch(r"mmd_(\d+)_subsets_of_(\d+)", name):
            generator = np.random.RandomState(meta["numpy_legacy_seed_set_before_evaluate"] + 1)
            how: dict[str, Any] = {"generator": generator, "num_subsets": 1, "subset_size": int(drawn[2])}
            values = [polynomial_mmd(embeddings, sample, **how) for _ in range(int(drawn[1]))]
            results.append(check(name, values, wanted, atol=1e-6, rtol=1e-4))
        elif name == "mmd_all_no_subsets_first_n":
            first = extra["mmd_first_n"]
            results.append(check(name, mmd_of(embeddings[:first], sample[:first]), wanted, atol=1e-6, rtol=1e-4))
        elif neighbours := re.fullmatch(r"prdc_all_k(\d+)", name):
            got = asdict(prdc(embeddings, sample, k=int(neighbours[1])))
            results += [check(f"{name} {part}", got[part], wanted[part], atol=one_image + 1e-9) for part in wanted]
    return results


def check_internals(path: Path, embeddings: np.ndarray, sample: np.ndarray) -> list[Result]:
    file = path.with_name(f"{path.stem}_internals.npz")
    if not file.exists():  # the committed subset leaves it out
        return []
    arrays = load_arrays(file)
    results = []
    for name, wanted in arrays.items():
        if radii := re.fullmatch(r"(ref|sample)_radii_k(\d+)", name):
            rows = embeddings if radii[1] == "ref" else sample
            results.append(check(name, neighbour_radii(rows, int(radii[2])), wanted, atol=1e-4, rtol=1e-4))
    if arrays["dist_ref_sample"].size:
        got = euclidean_distances(embeddings, sample)
        results.append(check("distances", got, arrays["dist_ref_sample"], atol=1e-4, rtol=1e-4))
    return results


# --- transform and prompts -------------------------------------------------------------------------------------------


def check_transform(arrays: dict[str, np.ndarray], tolerance: float) -> list[Result]:
    from benchmarks.gpic.dinov2 import transform

    results = []
    for name, wanted in arrays.items():
        if found := EVERY_NTH.fullmatch(name):
            index, stride = found[1], int(found[2])
            output, mean = transform(arrays[f"image_{index}"]), arrays[f"output_{index}_channel_mean"]
            results.append(check(f"image {index}", output[:, ::stride, ::stride], wanted, atol=tolerance))
            results.append(check(f"image {index}, mean", output.mean(axis=(1, 2)), mean, atol=tolerance))
    return results


def check_prompts(meta: Meta, folder: Path) -> list[Result]:
    """The list built from statistics and tars, record by record."""
    stats, tars = meta["inputs"]
    captions, _ = build_prompts(folder / stats, (folder / tars).parent)
    wanted = [row for _, row in read_json_lines(folder / meta["expected"])]
    results = [check_equal("number of prompts", len(captions), len(wanted))]
    for caption, row in zip(captions, wanted, strict=False):
        got = asdict(caption)
        results.append(check_equal(row["key"], [got[name] for name in row], list(row.values())))
    return results

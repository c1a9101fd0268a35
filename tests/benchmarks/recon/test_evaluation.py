from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.recon.evaluation import Measured, Options, evaluate
from benchmarks.recon.pairs import PairSet
from benchmarks.recon.scorer import LABELS, metrics, notes
from harness.contract.errors import BadSamples, UserError

FOLDER = Path(__file__).parents[3] / "benchmarks" / "recon"
DECLARED = yaml.safe_load((FOLDER / "benchmark.yaml").read_text())


def measured(count: int = 10) -> Measured:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(2, count, 6)).astype(np.float32)
    l1, psnr, ssim = generator.uniform(0.1, 0.9, (3, count))
    return Measured(l1=l1, psnr=30 * psnr, ssim=ssim, originals=features[0], reconstructions=features[1])


def test_benchmark_yaml_declares_the_defaults_and_metrics_of_the_code() -> None:
    assert DECLARED["options"] == Options().as_mapping()
    assert [metric["name"] for metric in DECLARED["metrics"]] == list(LABELS)
    assert set(DECLARED["check"]["expected"]) == set(LABELS)


def test_a_short_last_batch_weighs_as_much_as_a_full_one_in_l1_but_not_in_ssim() -> None:
    given = measured()
    values = evaluate(given, Options(batch_size=8))
    assert values["l1"] == pytest.approx((given.l1[:8].mean() + given.l1[8:].mean()) / 2)
    assert values["ssim"] == pytest.approx(given.ssim.mean())


def test_means_have_an_interval_and_the_distance_has_none() -> None:
    intervals = {metric.name: metric.interval for metric in metrics(measured(), Options())}
    assert intervals.pop("rfid") is None
    assert all(intervals.values())


def test_the_notes_say_how_the_pairs_were_made() -> None:
    pairs = PairSet.open(FOLDER / "check" / "samples")
    assert any("do not say" in note for note in notes(pairs, Options()))


def test_one_pair_has_no_distance() -> None:
    with pytest.raises(BadSamples, match="at least 2 pairs"):
        evaluate(measured(1), Options())


@pytest.mark.parametrize(("given", "sentence"), [({"resize": "box"}, "bicubic or bilinear"), ({"ema": 1}, "true or")])
def test_a_wrong_option_is_refused_by_name(given: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Options.from_mapping(given)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.recon.evaluation import Measured, batch_means_interval, evaluate
from benchmarks.recon.interface import METRICS, Options
from benchmarks.recon.pairs import PairSet
from benchmarks.recon.scorer import metrics, notes
from harness.contract.errors import BadSamples, UserError
from harness.metrics.image import mean_of_batch_means
from harness.metrics.interval import bootstrap_interval

FOLDER = Path(__file__).parents[3] / "benchmarks" / "recon"
DECLARED = yaml.safe_load((FOLDER / "benchmark.yaml").read_text())


def measured(count: int = 10) -> Measured:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(2, count, 6)).astype(np.float32)
    l1, psnr, ssim = generator.uniform(0.1, 0.9, (3, count))
    return Measured(l1=l1, psnr=30 * psnr, ssim=ssim, originals=features[0], reconstructions=features[1])


def test_every_metric_is_declared_and_checked() -> None:
    computed = [metric.name for metric in metrics(measured(), Options())]
    assert [metric.name for metric in METRICS] == computed
    assert set(DECLARED["check"]["expected"]) == set(computed)


def test_a_short_last_batch_weighs_as_much_as_a_full_one_in_l1_but_not_in_ssim() -> None:
    given = measured()
    values = evaluate(given, Options(mean_batch=8))
    assert values["l1"] == pytest.approx((given.l1[:8].mean() + given.l1[8:].mean()) / 2)
    assert values["ssim"] == pytest.approx(given.ssim.mean())


def test_the_speed_of_the_network_does_not_move_the_numbers() -> None:
    assert evaluate(measured(), Options(batch_size=3)) == evaluate(measured(), Options())


def test_the_interval_is_about_the_published_value_where_the_last_batch_is_short() -> None:
    values = np.r_[np.random.default_rng(0).normal(20, 1, 32), [40.0]]
    low, high = batch_means_interval(values, 32)
    assert low < mean_of_batch_means(values, 32) < high
    ordinary = np.random.default_rng(0).normal(20, 1, 1000)
    low, high = batch_means_interval(ordinary, 32)
    assert 0.09 < high - low < 0.16
    assert low < mean_of_batch_means(ordinary, 32) < high


def test_of_full_batches_it_is_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(20, 1, 64)
    assert batch_means_interval(values, 32) == pytest.approx(bootstrap_interval(values))


def test_the_published_tokenizers_are_listed() -> None:
    rows = {row["model"].split(" (")[0]: row["metrics"] for row in DECLARED["published"]}
    assert len(rows) == 9
    assert rows["VQ-16, original"] == {"rfid": 2.19, "psnr": 20.79, "ssim": 0.55}
    assert rows["IBQ-16, GEAR"] == {"rfid": 1.72, "psnr": 20.92, "ssim": 0.57}


def test_means_have_an_interval_and_the_distance_has_none() -> None:
    intervals = {metric.name: metric.interval for metric in metrics(measured(), Options())}
    assert intervals.pop("rfid") is None
    assert all(intervals.values())


def test_the_notes_say_how_the_pairs_were_made() -> None:
    pairs = PairSet.open(FOLDER / "check" / "samples")
    assert any("do not state" in note for note in notes(pairs, Options()))


def test_one_pair_has_no_distance() -> None:
    with pytest.raises(BadSamples, match="at least 2 pairs"):
        evaluate(measured(1), Options())


@pytest.mark.parametrize(
    ("given", "sentence"), [({"resize": "box"}, "choose one of bicubic, bilinear"), ({"ema": 1}, "true or")]
)
def test_a_wrong_option_is_refused_by_name(given: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Options.read(given, "recon")

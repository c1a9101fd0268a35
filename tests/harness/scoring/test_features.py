from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.contract.errors import BadSamples, EnvironmentFailure, UserError
from harness.scoring.features import FeatureFile, read_ahead, read_features


def test_batches_become_one_array_on_disk(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    file = FeatureFile(tmp_path / "pool.npy", count=7)
    for start in range(0, 7, 3):
        file.append(features[start : start + 3])
    kept = file.finish()
    assert isinstance(kept, np.memmap)
    np.testing.assert_array_equal(kept, features)


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "pool.npy", count=3)
    file.put([2, 0], np.array([[2.0], [0.0]]))
    file.put([1], np.array([[1.0]]))
    np.testing.assert_array_equal(file.finish()[:, 0], [0.0, 1.0, 2.0])


def test_a_network_that_gives_nan_is_a_failure_of_the_environment(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "pool.npy", count=2)
    with pytest.raises(EnvironmentFailure, match="gave NaN or infinity for image 0"):
        file.append(np.array([[np.nan], [1.0]]))


def test_missing_batches_are_noticed(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "pool.npy", count=2)
    file.append(np.ones((1, 3)))
    with pytest.raises(ValueError, match="announced with 2 rows; 1 were appended"):
        file.finish()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "pool.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"pool\.npy: cannot be read as features"):
        read_features(tmp_path / "pool.npy")


def test_batches_are_read_ahead_in_order_and_no_further(tmp_path: Path) -> None:
    read: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(9):
            read.append(number)
            yield number

    for seen, batch in enumerate(read_ahead(batches())):
        assert batch == seen and len(read) <= seen + 4
    assert read == list(range(9))


def test_a_damaged_batch_is_an_error_where_it_would_be_used() -> None:
    def batches() -> Iterator[int]:
        yield 1
        raise BadSamples("the second one is damaged")

    ahead = read_ahead(batches())
    assert next(ahead) == 1
    with pytest.raises(BadSamples, match="damaged"):
        next(ahead)

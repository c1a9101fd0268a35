"""Mutated benchmark.yaml and assets.yaml, and values of --set: read, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.catalog.assets import read_assets
from harness.catalog.benchmarks import Catalog, read_benchmark
from harness.cli.base import by_benchmark
from harness.contract.errors import UserError
from tests.mutations import ODD_VALUES, mutations

SHIPPED = Path(__file__).parents[3] / "benchmarks"
BENCHMARKS = sorted(path.parent.name for path in SHIPPED.glob("*/benchmark.yaml"))
LISTS = sorted(path.parent.name for path in SHIPPED.glob("*/assets.yaml"))


def reads(call: Callable[[], Any]) -> None:
    """It has a result, or is refused in one line."""
    try:
        call()
    except UserError as refused:
        assert str(refused) and "\n" not in str(refused), str(refused)  # noqa: PT017


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """The shipped benchmarks, each file a link, so that single ones can be replaced."""
    for folder in SHIPPED.iterdir():
        if folder.is_dir():
            (tmp_path / folder.name).mkdir()
            for path in folder.iterdir():
                (tmp_path / folder.name / path.name).symlink_to(path)
    return tmp_path


def replaced(path: Path, text: str) -> Path:
    path.unlink()
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_mutated_benchmark_is_read_or_refused_in_a_sentence(name: str, folders: Path) -> None:
    text = (SHIPPED / name / "benchmark.yaml").read_text(encoding="utf-8")
    assets = read_assets(sorted(SHIPPED.glob("*/assets.yaml")))

    def use() -> None:
        benchmark = read_benchmark(path)
        catalog = Catalog([benchmark], assets)
        catalog.benchmark(name).read_options({})
        for asset in benchmark.needed_assets:
            catalog.asset(asset)

    for mutated in mutations(text, seed=len(text), count=60):
        path = replaced(folders / name / "benchmark.yaml", mutated)
        reads(use)


@pytest.mark.parametrize("name", LISTS)
def test_a_mutated_list_of_assets_is_read_or_refused_in_a_sentence(name: str, folders: Path) -> None:
    text = (SHIPPED / name / "assets.yaml").read_text(encoding="utf-8")
    for mutated in mutations(text, seed=len(text), count=60):
        path = replaced(folders / name / "assets.yaml", mutated)
        reads(lambda path=path: read_assets([path]))  # type: ignore[misc]


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: value[:20])
def test_a_value_of_set_is_taken_or_refused_in_a_sentence(value: str) -> None:
    for benchmark in ("adm", "wise"):
        read = read_benchmark(SHIPPED / benchmark / "benchmark.yaml")
        for option in read.options:
            if value:
                reads(lambda: read.read_options(by_benchmark({f"{read.id}.{option}": value})[read.id]))  # noqa: B023

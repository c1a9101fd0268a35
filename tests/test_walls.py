"""Who may import whom: no benchmark imports another one or gear, and the inner parts of the harness no outer ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(path.parent for path in (ROOT / "benchmarks").glob("*/benchmark.yaml"))
MAY_IMPORT = {
    "contract": {"harness.contract"},
    "metrics": {"harness.contract", "harness.metrics"},
    "scoring": {"harness.contract", "harness.metrics", "harness.scoring"},
}
HEAVY = {"numba", "scipy.stats", "tensorflow", "torch", "torchvision", "transformers"}


def imported(path: Path, *, at_once: bool = False) -> Iterator[str]:
    """Every module that a file imports, with its full name: anywhere in it, or `at_once`, when it is imported."""
    tree = ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports relatively; write the full name"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def is_within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("folder", BENCHMARKS, ids=lambda folder: folder.name)
def test_a_benchmark_imports_no_other_benchmark_and_no_gear(folder: Path) -> None:
    for path in folder.rglob("*.py"):
        modules = list(imported(path))
        others = [name for name in modules if is_within(name, {"benchmarks"})]
        assert all(is_within(name, {f"benchmarks.{folder.name}"}) for name in others), path
        # check/make.py is no part of a step: it made a gold check once, and demo_t2i's draws gear's digits for it.
        if path.parent.name != "check":
            assert not any(is_within(name, {"gear"}) for name in modules), path
            inside = [name for name in modules if is_within(name, {"harness"})]
            assert all(is_within(name, MAY_IMPORT["scoring"]) for name in inside), path


@pytest.mark.parametrize("folder", [folder for folder in BENCHMARKS if (folder / "interface.py").is_file()])
def test_an_interface_is_cheap_to_load(folder: Path) -> None:
    modules = [name for name in imported(folder / "interface.py") if is_within(name, {"harness", "benchmarks"})]
    assert all(is_within(name, {"harness.contract", "harness.scoring.interface"}) for name in modules)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_the_inner_parts_of_the_harness_know_no_outer_ones(package: str) -> None:
    for path in (ROOT / "harness" / package).rglob("*.py"):
        ours = [name for name in imported(path) if is_within(name, {"harness", "gear", "benchmarks"})]
        assert all(is_within(name, MAY_IMPORT[package]) for name in ours), path


@pytest.mark.parametrize("package", ["metrics", "scoring"])
def test_nothing_heavy_is_imported_with_what_every_scorer_imports(package: str) -> None:
    folder = ROOT / "harness" / package
    for path in set(folder.rglob("*.py")) - set((folder / "networks").glob("*.py")):
        assert not any(is_within(name, HEAVY) for name in imported(path, at_once=True)), path

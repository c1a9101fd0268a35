"""Who may import whom: the contract knows nobody, the harness knows no generator, and no import goes in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "contract": set(),
    "metrics": set(),
    "scoring": {"contract", "metrics"},
    "store": {"contract"},
    "catalog": {"contract", "store"},
    "planning": {"contract", "catalog"},
    "runtimes": {"contract", "catalog", "store", "planning"},
    "schedulers": {"planning"},
    "running": {"contract", "catalog", "store", "planning", "runtimes", "schedulers"},
    "report": {"contract", "metrics", "catalog", "store"},
    "reproduce": {"contract", "metrics", "catalog", "store", "report"},
    "api": {"contract", "catalog", "planning", "running", "store"},
    "cli": {"api", "contract", "catalog", "planning", "running", "report", "reproduce"},
}
"""Room of `harness` -> rooms that it may import; each stands above all that it imports."""
GEAR_WORDS = (
    "gear.",
    "import gear",
    "from gear",
    "--ckpt",
    "--vq-ckpt",
    "--tokenizer",
    "model.pt",
    "gear train",
    "llamagen",
)


HEAVY = ("torch", "torchvision", "tensorflow", "transformers", "scipy.stats")


def imports(path: Path, *, at_once: bool = False) -> Iterator[str]:
    """Every name that a file imports, in full: anywhere in it, or `at_once`, when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        found.setdefault(path.relative_to(ROOT / folder).parts[0].removesuffix(".py"), []).append(path)
    return found


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_lies_below_it(room: str):
    for path in rooms(Path("harness"))[room]:
        taken = {name.split(".")[1] for name in imports(path) if name.startswith("harness.") and name.count(".")}
        taken &= MAY_IMPORT.keys()
        assert taken <= MAY_IMPORT[room] | {room}, path


def test_the_rooms_are_all_there_and_none_lies_in_a_circle():
    found = set(rooms(Path("harness"))) - {"__init__", "__main__"}
    assert found == set(MAY_IMPORT)
    done: set[str] = set()
    while done != found:
        ready = {room for room in found - done if MAY_IMPORT[room] <= done}
        assert ready, f"a circle among {sorted(found - done)}"
        done |= ready


def test_the_harness_holds_no_word_of_gears():
    for path in (ROOT / "harness").rglob("*.*"):
        if path.suffix in {".py", ".j2"}:
            text = path.read_text(encoding="utf-8").lower()
            assert not [word for word in GEAR_WORDS if word in text], path


@pytest.mark.parametrize("benchmark", sorted(rooms(Path("benchmarks"))))
def test_a_benchmark_imports_no_other_benchmark_and_no_gear(benchmark: str):
    for path in rooms(Path("benchmarks"))[benchmark]:
        for name in imports(path):
            package, _, rest = name.partition(".")
            assert package != "benchmarks" or rest.split(".")[0] == benchmark, path
            # check/make.py is no part of a step: it made a gold check once, and demo_t2i's draws gear's digits for it.
            if path.parent.name != "check":
                assert package != "gear", path
                assert package != "harness" or rest.split(".")[0] in {"contract", "metrics", "scoring"}, path


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("*/interface.py")), ids=lambda path: path.parent.name
)
def test_an_interface_imports_the_contract_alone(path: Path):
    assert all(name.startswith("harness.contract.") for name in imports(path) if name.startswith(("harness", "gear")))


@pytest.mark.parametrize("room", ["contract", "metrics", "scoring"])
def test_nothing_heavy_is_imported_with_what_every_scorer_imports(room: str):
    for path in rooms(Path("harness"))[room]:
        if path.parent.name != "networks":
            heavy = [name for name in imports(path, at_once=True) if name.startswith(HEAVY)]
            assert not heavy, (path, heavy)


TRAINING = {
    "processes": {"settings"},
    "optim": {"processes"},
    "stages": {"processes", "optim", "ema"},
    "watching": {"stages", "processes", "stopping", "settings"},
}


@pytest.mark.parametrize("room", sorted(TRAINING))
def test_training_has_one_direction(room: str):
    for path in rooms(Path("gear/training"))[room]:
        taken = {name.split(".")[2] for name in imports(path) if name.startswith("gear.training.")}
        assert taken <= TRAINING[room] | {room}, (path, taken)


def test_no_module_lies_beside_a_folder_of_its_name():
    """Which of the two `import` finds depends on who imported first: pytest enters the folders of tests as packages."""
    both = [
        str(path)
        for area in ("gear", "harness", "benchmarks", "tests", "scripts")
        for path in (ROOT / area).rglob("*.py")
        if path.with_suffix("").is_dir()
    ]
    assert both == []

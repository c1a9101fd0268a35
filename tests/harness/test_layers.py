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
    "api": {"contract", "catalog", "planning", "running", "store"},
    "cli": {"api", "contract", "catalog", "planning", "running", "report"},
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


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


def test_no_benchmark_imports_another_nor_gear():
    for benchmark, paths in rooms(Path("benchmarks")).items():
        for path in paths:
            for name in imports(path):
                assert not name.startswith("gear"), path
                assert not name.startswith("benchmarks.") or name.split(".")[1] == benchmark, path
                taken = name.split(".")[1] if name.startswith("harness.") else "contract"
                assert taken in {"contract", "metrics", "scoring"}, path


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

"""`python -m tests.conformance DIR [DIR ...]`: run every golden case under DIR and print one line per case.

DIR is a folder of area folders (`DIR/tokenizers/*.json`, ...) or an area folder itself. Cases are found by reading
the json files; nothing about their names or number is assumed. The exit status is 0 only when no case failed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests import conformance
from tests.conformance.case import Result, Unsupported, worst

Runner = Callable[[Path], "list[Result] | None"]


def area_runners() -> dict[str, Runner]:
    """Area name -> its runner; an area is a module of this package with `AREA` and `run`."""
    runners = {}
    for info in pkgutil.iter_modules(conformance.__path__):
        module_name = f"{conformance.__name__}.{info.name}"
        if info.name.startswith("area_"):
            module = importlib.import_module(module_name)
            runners[module.AREA] = module.run
    return runners


def find_cases(root: Path, areas: set[str]) -> Iterator[tuple[str, Path]]:
    """Every json of every area folder at `root` (or of `root` itself, when it is one) and of its folders, sorted."""
    folders = [root] if root.name in areas else sorted(path for path in root.iterdir() if path.is_dir())
    for folder in folders:
        for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
            yield folder.name, path


def case_name(area: str, path: Path) -> str:
    """What a case is called: its file's name, with the folder's in front where the case has a folder of its own."""
    return path.stem if path.parent.name == area else f"{path.parent.name}/{path.stem}"


def run_case(runner: Runner | None, path: Path) -> tuple[str, str] | None:
    """(verdict, text) of one case, or None for a json that is no case (a companion file)."""
    if runner is None:
        return "unsupported", "no checker for this area yet"
    try:
        results = runner(path)
    except Unsupported as reason:
        return "unsupported", str(reason)
    except Exception as error:
        if os.environ.get("CONFORMANCE_TRACEBACK"):
            traceback.print_exc()
        return "fail", f"{type(error).__name__}: {error}"
    if results is None:
        return None
    if not results:
        return "fail", "the checker compared nothing"
    key = worst(results)
    verdict = "pass" if all(result.passed for result in results) else "fail"
    failed = sum(not result.passed for result in results)
    text = f"max error {key.error:.3g} (tolerance {key.tolerance:.3g}) at {key.name}; {len(results)} checks"
    if failed:
        text += f", {failed} out of tolerance" + (f"; {key.detail}" if key.detail else "")
    return verdict, text


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.split("\n\n")[0])
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="folder of golden areas, or one area")
    parser.add_argument("--area", action="append", help="only this area; may be repeated")
    parser.add_argument("-k", dest="pattern", default="", help="only cases whose name contains this text")
    args = parser.parse_args(argv)

    runners = area_runners()
    counts: Counter[str] = Counter()
    for directory in args.directories:
        if not directory.is_dir():
            parser.error(f"{directory} is not a folder; give the folder that holds the golden areas")
        for area, path in find_cases(directory, set(runners)):
            if (args.area and area not in args.area) or args.pattern not in case_name(area, path):
                continue
            outcome = run_case(runners.get(area), path)
            if outcome is not None:
                verdict, text = outcome
                counts[verdict] += 1
                print(f"{verdict:<11} {area:<11} {case_name(area, path):<28} {text}", flush=True)
    if not counts:
        parser.error("no golden case found; give the folder that holds the golden areas")
    print(f"cases: {counts['pass']} passed, {counts['fail']} failed, {counts['unsupported']} unsupported")
    return 1 if counts["fail"] else 0


if __name__ == "__main__":
    sys.exit(main())

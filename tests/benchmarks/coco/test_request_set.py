"""The request set follows the selection."""

from __future__ import annotations

from pathlib import Path

from benchmarks.coco.request_set import main
from harness.contract.files import write_json
from harness.contract.requests import RequestSet
from harness.scoring.coco import CocoParquet, selection

ASSETS = Path(__file__).parents[3] / "benchmarks" / "coco" / "check" / "assets"


def test_the_request_set_follows_the_selection(tmp_path: Path) -> None:
    spec = {
        "benchmark": "coco",
        "version": 1,
        "protocol": {"image_size": 32},
        "requests": {"num_samples": 4, "selection_seed": 42},
        "limit": None,
        "run_seed": 0,
    }
    write_json(tmp_path / "spec.json", spec)
    arguments = ["--spec", tmp_path / "spec.json", "--assets", ASSETS, "--out", tmp_path / "out"]
    assert main([str(argument) for argument in arguments]) == 0
    captions = CocoParquet(ASSETS / "coco-val2017").captions()
    wanted = [captions[row] for row in selection(len(captions), 4, 42)]
    assert [request.prompt for request in RequestSet.read(tmp_path / "out")] == wanted

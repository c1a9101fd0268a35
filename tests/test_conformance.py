"""Golden cases: the committed subset always, the whole set where `shared/golden` lies beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.__main__ import area_runners, case_name, find_cases, main, run_case

HERE = Path(__file__).parent
FOLDERS = [HERE / "golden", HERE.parent.parent / "shared" / "golden"]
RUNNERS = area_runners()
CASES = [
    pytest.param(area, path, id=f"{folder.parent.name}-{area}-{case_name(area, path)}")
    for folder in FOLDERS
    if folder.is_dir()
    for area, path in find_cases(folder, set(RUNNERS))
    if area in RUNNERS
]


@pytest.mark.parametrize(("area", "path"), CASES)
def test_golden_case_is_met(area: str, path: Path) -> None:
    outcome = run_case(RUNNERS[area], path)
    if outcome is not None:
        verdict, text = outcome
        assert verdict == "pass", text


def test_a_wrong_number_in_a_golden_case_fails_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check can fail: an output that is off by more than its tolerance is reported, and the exit status says so."""
    from safetensors.numpy import load_file, save_file

    area = tmp_path / "sampling"
    area.mkdir()
    source = HERE / "golden" / "sampling"
    arrays = load_file(source / "filtering.safetensors")
    name = next(key for key in arrays if key.endswith(".probs"))
    arrays[name] = arrays[name] + 1e-3
    save_file(arrays, area / "filtering.safetensors")
    (area / "filtering.json").write_bytes((source / "filtering.json").read_bytes())

    assert main([str(tmp_path)]) == 1
    assert "0 passed, 1 failed, 0 unsupported" in capsys.readouterr().out

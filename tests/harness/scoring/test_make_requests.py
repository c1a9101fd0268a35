from __future__ import annotations

from pathlib import Path

import pytest

from harness.contract.errors import UserError
from harness.contract.files import write_json
from harness.contract.requests import RequestSet
from harness.scoring.make_requests import main, make_requests
from harness.scoring.request_script import limited
from harness.scoring.scorer import Assets

NO_ASSETS = Assets(Path())
SPEC = {
    "benchmark": "toy",
    "version": 1,
    "protocol": {"image_size": 8, "cfg_scale": 2.0},
    "requests": {"kind": "classes", "count": 6, "num_classes": 3, "labels": "balanced"},
    "limit": None,
    "run_seed": 0,
}


def test_classes_become_a_request_set_on_disk(tmp_path):
    write_json(tmp_path / "spec.json", SPEC)
    assert main(["--spec", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out")]) == 0
    requests = RequestSet.read(tmp_path / "out")
    assert len(requests) == 6 and requests.protocol.cfg_scale == 2.0 and requests.labels == [0, 1, 2, 0, 1, 2]


def test_a_limit_keeps_the_first_and_another_seed_draws_others():
    whole, part = (limited(make_requests, {**SPEC, "limit": limit}, NO_ASSETS) for limit in (None, 2))
    assert [r.seed for r in part] == [r.seed for r in whole][:2]
    assert make_requests({**SPEC, "run_seed": 1}, NO_ASSETS)[0].seed != whole[0].seed


@pytest.mark.parametrize("change", [{"requests": {"kind": "songs"}}, {"protocol": {"image_size": 8, "cgf_scale": 2}}])
def test_a_wrong_specification_names_the_field(change):
    with pytest.raises(UserError, match=r"songs|cgf_scale"):
        make_requests({**SPEC, **change}, NO_ASSETS)


def test_a_user_error_becomes_an_exit_code(tmp_path, capsys):
    write_json(tmp_path / "spec.json", {**SPEC, "limit": 0})
    assert main(["--spec", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out")]) == 2
    assert "limit" in capsys.readouterr().err

"""What every service of compose.yaml is kept within."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

SERVICES = yaml.safe_load((Path(__file__).parents[1] / "compose.yaml").read_text())["services"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_no_more_rights_processes_and_memory_than_it_needs(name: str):
    service = SERVICES[name]
    assert 0 < service["pids_limit"] <= 8192
    assert service["mem_limit"] == service["memswap_limit"] and "g}" in service["mem_limit"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["init"]
    assert service["security_opt"] == ["no-new-privileges:true"] and service["user"] == "${UID:-1000}:${GID:-1000}"

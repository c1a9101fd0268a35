"""The example of a generator, called as the harness calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harness.contract import SampleSet, SamplingProtocol, class_requests

SCRIPT = Path(__file__).parents[2] / "examples/my_generator.py"


def test_the_example_answers_a_request_set_and_stays_short(tmp_path):
    class_requests("toy", 1, SamplingProtocol(image_size=8), count=5, num_classes=3).write(tmp_path / "requests")
    command = [sys.executable, str(SCRIPT), "--requests", str(tmp_path / "requests"), "--out", str(tmp_path / "out")]
    for _ in range(2):  # the second time there is nothing left to do
        subprocess.run(command, check=True, capture_output=True)
    samples = SampleSet.open(tmp_path / "out")
    samples.validate()
    assert len(samples) == 5
    assert len(SCRIPT.read_text().splitlines()) < 40

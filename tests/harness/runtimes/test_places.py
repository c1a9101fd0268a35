"""What a step says about its inputs names the files that the user gave."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runtimes import Places

PLACES = Places(
    inputs={
        "samples": Path("/data/mine"),
        "samples.npz": Path("/data/mine.npz"),
        "assets/reference/reference.npz": Path("/data/imagenet (1).npz"),
    },
    work=Path("/runs/.store/work/score-0123"),
)


@pytest.mark.parametrize("root", ["/runs/.store/work/score-0123/in", "/in"])
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("{}/samples/a/1.png: is damaged", "/data/mine/a/1.png: is damaged"),
        ("BadSamples: {}/samples.npz: is cut short.", "BadSamples: /data/mine.npz: is cut short."),
        ("(see {}/samples.)", "(see /data/mine.)"),
        ("'{}/assets/reference/reference.npz'", "'/data/imagenet (1).npz'"),
        ("{}/samples and {}/samples.npz", "/data/mine and /data/mine.npz"),
        ("{}/samples-2 {}/sample /usr{}/samples", "{}/samples-2 {}/sample"),
    ],
)
def test_paths_of_inputs_are_those_that_were_given(root: str, said: str, shown: str) -> None:
    found = PLACES.with_given_paths(said.replace("{}", root))
    assert found.startswith(shown.replace("{}", root))
    assert Places(inputs={}, work=Path("/w")).with_given_paths("/w/in/x") == "/w/in/x"

"""Work divided among devices; here processes without GPUs, which is the same to the code."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from harness.contract import EnvironmentFailure, MissingAsset
from harness.scoring.workers import run_on_devices


def square(device: str, offset: int) -> Callable[[int], tuple[int, str, int]]:
    return lambda task: (task * task + offset, device, os.getpid())


def refuse(device: str) -> Callable[[int], int]:
    raise MissingAsset("weights.pth: is missing")


def break_on_three(device: str) -> Callable[[int], int]:
    def work(task: int) -> int:
        if task == 3:
            raise ValueError("three")
        return task

    return work


def die(device: str) -> Callable[[int], int]:
    os._exit(9)


def test_one_device_works_in_this_process_and_in_order() -> None:
    results = list(run_on_devices(square, [1], [2, 3], ["cpu"]))
    assert [(task, result[0]) for task, result in results] == [(2, 5), (3, 10)]
    assert {result[2] for _, result in results} == {os.getpid()}


def test_several_devices_do_every_task_once() -> None:
    results = dict(run_on_devices(square, [0], list(range(5)), ["a", "b"]))
    assert {task: result[0] for task, result in results.items()} == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}
    assert {result[1] for result in results.values()} == {"a", "b"} and len({r[2] for r in results.values()}) == 2


@pytest.mark.parametrize(
    ("build", "error", "sentence"),
    [
        (refuse, MissingAsset, "weights.pth"),
        (break_on_three, EnvironmentFailure, "ValueError: three"),
        (die, EnvironmentFailure, "killed"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_raised_here(build, error, sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        list(run_on_devices(build, [], list(range(5)), ["a", "b"]))

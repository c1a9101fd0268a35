"""Schedulers decide when and where steps run. Steps of a plan that do not wait for each other may run side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager
from typing import Any, Protocol

from harness.planning.steps import Resources, Step


class Scheduler(Protocol):
    """What a scheduler can do; one serves one run at a time."""

    @property
    def name(self) -> str:
        """As given to `--scheduler`."""

    @property
    def gpus(self) -> tuple[str, ...]:
        """Ids of the GPUs that steps can get; empty where they are not known before a step runs."""

    def describe(self) -> dict[str, Any]:
        """The machine or the cluster, for the run's record."""

    def run(self, steps: Sequence[Step], work: Callable[[Step], bool], under_way: Set[str]) -> None:
        """Call `work` for every step, each after all it waits for, and return when all have ended.

        Args:
            steps: in an order in which they can run.
            work: does one step; false withholds the steps that need it. It is called from several threads.
            under_way: names of running steps that have passed their checks; `work` adds to it. A step that comes
                `after` others waits only until they are done or in this set.
        """

    def take(self, wanted: Resources, give_up: Callable[[], bool]) -> AbstractContextManager[tuple[str, ...]]:
        """Wait until `wanted` is free or `give_up` says so, hold it, and yield the ids of the GPUs."""

    def wake(self) -> None:
        """Let every waiting `take` call its `give_up` again."""


class SchedulerFactory(Protocol):
    """What the entry point of a scheduler names: usually its class."""

    def __call__(self) -> Scheduler:
        """The scheduler."""

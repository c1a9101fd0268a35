from __future__ import annotations

import threading
import time

import pytest

from harness.planning.steps import OutputOf, Resources, Step
from harness.schedulers.here import Here, Machine


def step(name: str, *needs: str) -> Step:
    return Step(name=name, kind="x", argv=("true",), inputs={need: OutputOf(need) for need in needs})


def later(name: str, *after: str) -> Step:
    return Step(name=name, kind="x", argv=("true",), after=after)


def test_steps_wait_for_what_they_need_and_no_longer():
    order: list[str] = []
    both = threading.Barrier(2, timeout=10)

    def work(one: Step) -> bool:
        if one.name in {"b", "c"}:
            both.wait()  # passes only when b and c run at the same time
        order.append(one.name)
        return True

    Here().run([step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c")], work)
    assert order[0] == "a" and order[-1] == "d" and sorted(order) == ["a", "b", "c", "d"]


def test_what_needs_a_failed_step_is_not_begun():
    done: list[str] = []
    Here().run(
        [step("a"), step("b", "a"), step("c", "b"), step("d")], lambda one: done.append(one.name) or one.name != "a"
    )
    assert sorted(done) == ["a", "d"]


def test_a_step_comes_after_another_is_under_way_and_not_only_when_it_has_ended():
    under_way: set[str] = set()
    begun = threading.Event()
    done: list[str] = []

    def work(one: Step) -> bool:
        if one.name == "a":
            assert not begun.wait(1.2)  # more than two rounds
            under_way.add("a")
            assert begun.wait(10)  # passes only when b begins before this ends
        begun.set()
        done.append(one.name)
        return True

    Here().run([step("a"), later("b", "a")], work, under_way)
    assert sorted(done) == ["a", "b"]


def test_a_step_comes_after_another_that_never_said_that_it_is_under_way():
    done: list[str] = []
    Here().run([step("a"), later("b", "a")], lambda one: done.append(one.name) or True)
    assert done == ["a", "b"]


def test_what_comes_after_a_failed_step_is_not_begun():
    """Not even where it was under way for a moment."""
    done: list[str] = []
    under_way: set[str] = set()

    def work(one: Step) -> bool:
        done.append(one.name)
        under_way.add(one.name)
        return False

    Here().run([step("a"), later("b", "a")], work, under_way)
    assert done == ["a"]


def test_an_exception_is_raised_to_the_caller():
    def work(one: Step) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Here().run([step("a")], work)


def most_at_once(machine: Machine, wanted: Resources, count: int = 4) -> tuple[int, list[tuple[str, ...]]]:
    here, lock = Here(machine), threading.Lock()
    running, most, granted = 0, 0, []

    def work() -> None:
        nonlocal running, most
        with here.take(wanted) as gpus:
            with lock:
                running += 1
                most = max(most, running)
                granted.append(gpus)
            time.sleep(0.05)
            with lock:
                running -= 1

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return most, granted


def test_memory_limits_how_many_run_together():
    assert most_at_once(Machine(memory_gb=10, cpus=8), Resources(memory_gb=5))[0] == 2


def test_each_gpu_has_one_step_at_a_time():
    most, granted = most_at_once(Machine(gpus=("0", "1"), memory_gb=100, cpus=8), Resources(gpus=1))
    assert most == 2 and set(granted) == {("0",), ("1",)}


def test_a_step_gets_the_gpus_there_are():
    _, granted = most_at_once(Machine(gpus=("0", "1"), memory_gb=100, cpus=8), Resources(gpus=8), count=1)
    assert granted == [("0", "1")]
    assert most_at_once(Machine(memory_gb=100, cpus=8), Resources(gpus=1), count=1)[1] == [()]


def test_a_step_larger_than_the_machine_runs_alone():
    assert most_at_once(Machine(memory_gb=1, cpus=1), Resources(memory_gb=64, cpus=32))[0] == 1


def test_this_machine_has_memory_and_cores(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    machine = Machine.detect()
    assert machine.memory_gb > 0.1 and machine.cpus >= 1 and machine.gpus == ("2", "3")

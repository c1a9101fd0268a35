"""What `harness plan` says a step will cost, from earlier runs."""

from __future__ import annotations

from dataclasses import replace

from harness.running.estimates import Estimate, estimates
from harness.store.run_record import RunRecord


def changed(folder, **fields) -> None:
    """Write a record again with other values."""
    replace(RunRecord.read(folder), **fields).write(folder)


def test_a_step_costs_what_it_cost_before(toy):
    plan = toy.plan()
    assert set(estimates(plan, toy.setting()).values()) == {Estimate()}
    record = toy.run()
    folder = toy.runs_dir / record.run
    found = estimates(plan, toy.setting())
    for step in record.steps:
        assert found[step.name].seconds == step.computed_s
        assert (found[step.name].disk_bytes or 0) > 0
    # The same steps from cache took no time, and say so: what counts is what computing them took.
    changed(folder, steps=tuple(replace(step, seconds=0.0, status="cached") for step in record.steps))
    assert estimates(plan, toy.setting()) == found


def test_another_machine_another_count_and_another_model_say_nothing(toy):
    plan = toy.plan()
    record = toy.run()
    folder = toy.runs_dir / record.run
    for fields in ({"machine": {**record.machine, "host": "elsewhere"}}, {"options": {**record.options, "limit": 3}}):
        changed(folder, **fields)
        assert set(estimates(plan, toy.setting()).values()) == {Estimate()}
        changed(folder, machine=record.machine, options=record.options)
    changed(folder, generator={"name": "another"})
    found = estimates(plan, toy.setting())
    drawn = [step.name for step in plan.steps if step.kind == "sample"]
    assert drawn and all((found[step.name] == Estimate()) == (step.name in drawn) for step in plan.steps)


def test_a_damaged_record_of_another_run_is_passed_over(toy):
    plan = toy.plan()
    folder = toy.runs_dir / toy.run().run
    other = folder.with_name("other")
    other.mkdir()
    (other / "record.json").write_text("{")
    assert estimates(plan, toy.setting())["score-toy"].seconds is not None

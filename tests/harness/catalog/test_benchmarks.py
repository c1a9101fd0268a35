from __future__ import annotations

import pytest

from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.contract.errors import UserError
from harness.planning.generators import command_generator, existing_samples
from harness.planning.make import RunSpec, make_plan


def test_a_benchmark_folder_is_read_whole(toy):
    benchmark = toy.catalog.benchmark("toy")
    assert benchmark.protocol.image_size == 8 and benchmark.options["scale"] == 1.0
    assert benchmark.metrics[0].label == "Brightness" and benchmark.scorer.timeout_s == 7200
    assert [found.id for found in toy.catalog.suite("toys")] == ["toy"]


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("id: toy", "id: tyo", "make them equal"),
        ("scorer.py", "scorre.py", "does not exist"),
        ("form: npz", "form: gif", "'form' is 'gif'"),
        ("image_size: 8", "image_size: 0", "image_size"),
        ("image_size: 8", "image_size: 8, cfg: 2", "unknown field 'cfg'"),
        ("condition: class", "condition: [", "cannot be read as YAML"),
        ("options:", "opitons:", "unknown field 'opitons'"),
        ("higher_is_better: true", "higher_is_better: yeah", "true or false"),
    ],
)
def test_a_broken_benchmark_is_an_error_and_not_an_absence(toy, before: str, after: str, sentence: str):
    toy.edit("benchmarks/toy/benchmark.yaml", before, after)
    with pytest.raises(UserError, match=sentence) as caught:
        Catalog.load(toy.project)
    assert "benchmark.yaml" in str(caught.value)


def test_every_shipped_benchmark_is_well_formed(monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)
    project = find_project()
    catalog = Catalog.load(project)
    assert set(catalog.benchmarks) == {path.parent.name for path in project.benchmark_files()}
    for benchmark in catalog.benchmarks.values():
        for name in benchmark.assets:
            assert catalog.asset(name).file
        assert benchmark.metrics, f"{benchmark.id} declares no metrics"
        assert (benchmark.folder / "README.md").is_file()


def test_every_shipped_scorer_is_part_of_the_code_it_is_given(monkeypatch):
    """Also where a benchmark is scored by another one's program (`scorer.of`)."""
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)
    project = find_project()
    catalog = Catalog.load(project)
    for benchmark in catalog.benchmarks.values():
        pairs = benchmark.form == "pairs"  # not drawn by a generator
        generator = existing_samples(benchmark.folder / "check" / "samples") if pairs else command_generator("draw")
        plan = make_plan(RunSpec(benchmarks=(benchmark.id,), generator=generator), catalog)
        for step in plan.steps:
            scripts = [word.removeprefix("{code}/") for word in step.argv if word.startswith("{code}/")]
            assert set(scripts) <= set(project.code_files(step.environment.code)), (benchmark.id, step.name)
            assert scripts or step.kind in ("requests", "sample"), (benchmark.id, step.name)

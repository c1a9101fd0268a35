from __future__ import annotations

import pytest

from harness.catalog.benchmarks import Catalog
from harness.catalog.project import find_project
from harness.contract.errors import UserError
from harness.planning.generators import command_generator, existing_samples
from harness.planning.make import RunSpec, make_plan


def test_a_benchmark_folder_is_read_whole(toy):
    benchmark = toy.catalog.benchmark("toy")
    assert benchmark.protocol.image_size == 8
    assert benchmark.options == {"scale": 1.0, "refuse": 0}
    assert benchmark.metrics[0].label == "Brightness" and benchmark.scorer.timeout_s == 7200
    assert [found.id for found in toy.catalog.suite("toys")] == ["toy"]


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("id: toy", "id: tyo", "make them equal"),
        ("scorer.py", "scorre.py", "does not exist"),
        ("form: npz", "form: gif", "form is 'gif'; choose one of npz, png, pairs"),
        ("image_size: 8", "image_size: 0", "image_size"),
        ("image_size: 8", "image_size: 8, cfg: 2", r"has no field 'protocol\.cfg'"),
        ("condition: class", "condition: [", "cannot be read as YAML"),
        ("form: npz", "form: npz\nmetrics: []", "has no field 'metrics'"),
        ("form: npz", "form: npz\noptions: {scale: 2.0}", r"options are declared in interface\.py; .*: scale"),
        ("image: toy", "image: toy, stages: [{name: a, options: [size]}]", "stages, a names the option 'size', which"),
        (
            "form: npz",
            "form: npz\nassets_if: [{options: {size: 1}, assets: [a]}]",
            "assets_if names options that the scorer cannot have .*has no option 'size'",
        ),
        ("form: npz", "form: npz\nassets_if: [{options: {scale: x}, assets: [a]}]", "assets_if names .*scale"),
        ("source: sky", "options: {size: 1}", "published names .*has no option 'size'"),
        ("source: sky", "options: shade", "published names .*shade"),
        ("image: toy", "image: toy, variants: {a: {when: {size: 1}}}", "variants, a names the option 'size', which"),
        ("image: toy", "image: toy, variants: {a: {when: {}}}", r"scorer\.variants\.a\.when"),
        ("image: toy", "image: toy, variants: {a: {when: {scale: 1}, lock: no.lock}}", r"no\.lock does not exist"),
        ("labels: balanced", "options: [size]", "requests names the option 'size', which interface.py does not have"),
    ],
)
def test_a_broken_benchmark_is_an_error_and_not_an_absence(toy, before: str, after: str, sentence: str):
    toy.edit("benchmarks/toy/benchmark.yaml", before, after)
    with pytest.raises(UserError, match=sentence) as caught:
        Catalog.load(toy.project)
    assert "benchmark.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("METRICS = (", "METRICS = [", "cannot be loaded"),
        ("METRICS = ", "METRIC = ", "has no METRICS"),
        ("class Options", "class Option", "has no class Options"),
        ("from typing", "import nothing_like_it\nfrom typing", "cannot be loaded .*nothing_like_it"),
    ],
)
def test_a_broken_interface_is_named(toy, before: str, after: str, sentence: str):
    toy.edit("benchmarks/toy/interface.py", before, after)
    with pytest.raises(UserError, match=rf"interface\.py: {sentence}"):
        Catalog.load(toy.project)


def test_a_benchmark_without_an_interface_is_an_error(toy):
    (toy.root / "benchmarks/toy/interface.py").unlink()
    with pytest.raises(UserError, match=r"interface\.py: is missing; write one with Options and METRICS"):
        Catalog.load(toy.project)


def test_an_edited_interface_is_read_again(toy):
    assert toy.catalog.benchmark("toy").options["scale"] == 1.0
    toy.edit("benchmarks/toy/interface.py", "scale: float = 1.0", "scale: float = 3.0")
    assert toy.catalog.benchmark("toy").options["scale"] == 3.0


def variant(toy, options: str):
    """The toy's variant `toy_long`, which the toy's program scores."""
    folder = toy.root / "benchmarks/toy_long"
    folder.mkdir()
    text = (toy.root / "benchmarks/toy/benchmark.yaml").read_text()
    text = text.replace("id: toy", "id: toy_long").replace("scorer: {", "scorer: {of: toy, ") + f"options: {options}\n"
    (folder / "benchmark.yaml").write_text(text)
    return toy.catalog.benchmark("toy_long")


def test_a_variant_says_only_where_it_differs_from_its_owner(toy):
    found = variant(toy, "{scale: 2.5}")
    assert found.options == {"scale": 2.5, "refuse": 0}
    assert found.metrics == toy.catalog.benchmark("toy").metrics
    assert found.read_options({"refuse": 1}).as_mapping() == {"scale": 2.5, "refuse": 1}


def test_a_variants_wrong_option_is_named(toy):
    with pytest.raises(UserError, match="toy_long has no option 'scael'"):
        variant(toy, "{scael: 2.5}")


def test_every_shipped_benchmark_is_well_formed(monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)
    project = find_project()
    catalog = Catalog.load(project)
    assert set(catalog.benchmarks) == {path.parent.name for path in project.benchmark_files()}
    for benchmark in catalog.benchmarks.values():
        for name in [*benchmark.needed_assets, *(name for row in benchmark.assets_if for name in row.assets)]:
            assert catalog.asset(name).file
        assert benchmark.metrics, f"{benchmark.id} declares no metrics"
        assert (benchmark.folder / "README.md").is_file()
        names = {metric.name for metric in benchmark.metrics}
        assert set(benchmark.check.get("expected", {})) <= names
        assert all(set(row["metrics"]) <= names for row in benchmark.published)


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

"""A plan is data: made without an engine, without a write, and the same for the same request."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from gear.bench.generators import TokenizerGenerator
from gear.bench.origins import Origin
from harness.catalog.benchmarks import Catalog, FeatureStage
from harness.catalog.project import find_project
from harness.contract.errors import UserError
from harness.contract.interface import ScorerOptions
from harness.planning.generators import DrawContext, existing_samples
from harness.planning.make import RunSpec, make_plan
from harness.planning.steps import AssetInput, Document, Environment, FileInput, OutputOf, Plan, Step
from harness.running.preview import describe
from tests.gear import tiny
from tests.gear.bench.models import write_model


def step(**changes) -> Step:
    fields = {
        "name": "one",
        "kind": "train",
        "argv": ("{python}", "train.py"),
        "inputs": {"data": FileInput(Path("d"))},
    }
    return Step(**{**fields, **changes})


def test_a_benchmark_becomes_requests_samples_and_a_score(toy):
    plan = toy.plan()
    assert [(row.name, row.kind, row.needs) for row in plan.steps] == [
        ("requests-toy", "requests", ()),
        ("sample-toy", "sample", ("requests-toy",)),
        ("score-toy", "score", ("sample-toy",)),
    ]
    assert plan.steps[2].inputs["assets/toy-reference"] == AssetInput("toy-reference")
    assert plan.assets == [("toy-reference", "toy")]


def test_planning_writes_nothing_and_is_repeatable(toy):
    before = sorted(toy.root.rglob("*"))
    assert toy.plan() == toy.plan()
    assert sorted(toy.root.rglob("*")) == before


def test_a_plan_is_json(toy):
    assert json.loads(json.dumps(describe(toy.plan())))["steps"][0]["environment"] == "host"


def test_a_suite_stands_for_its_benchmarks(toy):
    by_suite = make_plan(RunSpec(suite="toys", generator=toy.command()), toy.catalog)
    assert [row.name for row in by_suite.steps] == [row.name for row in toy.plan().steps]


def test_samples_of_ones_own_need_no_requests_and_are_taken_in_once(toy):
    (toy.root / "mine.npz").touch()
    plan = toy.plan(generator=existing_samples(toy.root / "mine.npz"))
    assert [row.name for row in plan.steps] == ["samples", "score-toy"]
    assert plan.steps[1].inputs["samples"] == OutputOf("samples")


def test_changes_to_protocol_options_and_limit_reach_the_documents(toy):
    plan = toy.plan(protocol={"cfg_scale": 1.75}, limit=3, options={"toy": {"scale": 2.0}})
    spec = plan.step("requests-toy").inputs["spec.json"]
    assert isinstance(spec, Document) and spec.value["protocol"]["cfg_scale"] == 1.75 and spec.value["limit"] == 3
    assert plan.step("score-toy").inputs["options.json"] == Document({"scale": 2.0, "refuse": 0})


@pytest.mark.parametrize(
    ("request_fields", "sentence"),
    [
        ({"benchmarks": ("toyy",)}, "did you mean toy"),
        ({"benchmarks": (), "suite": "c2i"}, "no suite 'c2i'"),
        ({"benchmarks": ()}, "Nothing to run"),
        ({"options": {"toy": {"scael": 1}}}, r"--set toy\.scael=1: toy has no option 'scael'; it has: scale, refuse"),
        ({"options": {"toy": {"scale": "32x"}}}, r"--set toy\.scale=32x: scale must be a number, not '32x'"),
        ({"options": {"toy": {"refuse": -1}}}, r"--set toy\.refuse=-1: refuse must be a whole number of at least 0"),
        ({"options": {"adm": {"x": 1}}}, "not part of this run"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_a_fix(toy, request_fields, sentence: str):
    with pytest.raises(UserError, match=sentence):
        toy.plan(**request_fields)


def test_assets_that_only_some_options_ask_for_are_needed_with_these(toy):
    toy.edit(
        "benchmarks/toy/benchmark.yaml", "form: npz", "form: npz\nassets_if: [{options: {refuse: 0}, assets: [more]}]"
    )
    assert [name for name, _ in toy.plan().assets] == ["toy-reference", "more"]
    assert [name for name, _ in toy.plan(options={"toy": {"refuse": 1}}).assets] == ["toy-reference"]
    assert toy.catalog.benchmark("toy").needed_assets == ("toy-reference", "more")


def test_a_script_makes_the_requests_of_other_kinds(toy):
    toy.edit(
        "benchmarks/toy/benchmark.yaml",
        "{kind: classes, count: 12, num_classes: 3, labels: balanced}",
        "{kind: script, script: requests.py, assets: [toy-reference]}",
    )
    (toy.root / "benchmarks/toy/requests.py").write_text("")
    requests = toy.plan().step("requests-toy")
    assert requests.argv[1] == "{code}/benchmarks/toy/requests.py"
    assert requests.environment.keyed and requests.asset_names == ("toy-reference",)


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_depends_on_everything_that_determines_the_output():
    digests = {"data": "0" * 64}
    key = step().key(digests, None)
    others = [
        step(kind="score").key(digests, None),
        step(argv=("{python}", "other.py")).key(digests, None),
        step(identity={"code": "1"}).key(digests, None),
        step(version=2).key(digests, None),
        step().key({"data": "1" * 64}, None),
        step(environment=Environment(name="e", keyed=True)).key(digests, "a"),
        step(environment=Environment(name="e", keyed=True)).key(digests, "b"),
    ]
    assert len({key, *others}) == len(others) + 1


def test_a_key_does_not_depend_on_names_machines_or_limits_of_resources():
    digests = {"data": "0" * 64}
    plain = step()
    other = dataclasses.replace(plain, name="two", title="another", benchmark="b")
    assert plain.key(digests, "venv") == other.key(digests, "docker")


def test_a_key_needs_the_digest_of_every_input():
    with pytest.raises(ValueError, match="digests"):
        step().key({}, None)


def test_the_digest_of_a_plan_follows_the_contents_of_files_and_not_their_place():
    plans = [Plan(name="p", steps=(step(inputs={"data": FileInput(Path(name))}),)) for name in ("a", "b")]
    same = {Path("a"): "0", Path("b"): "0"}
    assert plans[0].digest(same, {}) == plans[1].digest(same, {})
    assert plans[0].digest({Path("a"): "1"}, {}) != plans[0].digest(same, {})


def test_a_name_that_cannot_be_a_folder_is_refused():
    for name in ("", "a/b", "a b", "ü"):
        with pytest.raises(UserError, match="step name"):
            Plan(name="p", steps=(step(name=name, inputs={}),))


def staged(toy, *more: FeatureStage, **stage) -> Catalog:
    """The toy with one feature stage, and `more`."""
    benchmark = toy.catalog.benchmark("toy")
    specs = (FeatureStage(name="reference", assets=("toy-reference",), options=("scale",), **stage), *more)
    return Catalog([dataclasses.replace(benchmark, scorer=dataclasses.replace(benchmark.scorer, stages=specs))], {})


def test_a_feature_stage_is_a_step_that_knows_only_what_it_reads(toy):
    plan = make_plan(RunSpec(benchmarks=("toy",), generator=toy.command()), staged(toy))
    stage, score = plan.step("features-toy-reference"), plan.step("score-toy")
    assert set(stage.inputs) == {"options.json", "assets/toy-reference"}
    assert stage.inputs["options.json"] == Document({"scale": 1.0})
    assert stage.argv[-2:] == ("--stage", "reference") and "--samples" not in stage.argv
    assert stage.needs == () and stage.produces == ("features.json",)
    assert score.inputs["features/reference"] == OutputOf("features-toy-reference")
    assert "--features" in score.argv


def test_a_stage_that_reads_samples_waits_for_them(toy):
    plan = make_plan(RunSpec(benchmarks=("toy",), generator=toy.command()), staged(toy, samples=True))
    assert plan.step("features-toy-reference").needs == ("sample-toy",)


def test_work_on_the_reference_comes_after_the_stage_that_checks_the_samples_and_keeps_its_key(toy):
    request = RunSpec(benchmarks=("toy",), generator=toy.command())
    plan = make_plan(request, staged(toy, FeatureStage(name="samples", samples=True)))
    names = [row.name for row in plan.steps]
    assert names[2:] == ["features-toy-samples", "features-toy-reference", "score-toy"]
    reference, alone = (other.step("features-toy-reference") for other in (plan, make_plan(request, staged(toy))))
    assert (reference.after, reference.needs, alone.after) == (("features-toy-samples",), (), ())
    digests = dict.fromkeys(reference.inputs, "0")
    assert reference.key(digests, "environment") == alone.key(digests, "environment")


def test_a_stage_that_checks_comes_before_all_others(toy):
    more = FeatureStage(name="samples", samples=True), FeatureStage(name="check", first=True)
    plan = make_plan(RunSpec(benchmarks=("toy",), generator=toy.command()), staged(toy, *more))
    order = {row.name: row.after for row in plan.steps[2:-1]}
    assert order == {
        "features-toy-check": (),
        "features-toy-samples": ("features-toy-check",),
        "features-toy-reference": ("features-toy-samples",),
    }


def test_a_step_that_comes_after_a_later_one_is_refused():
    with pytest.raises(UserError, match="'one' waits for 'two', which is not an earlier step"):
        Plan(name="p", steps=(step(after=("two",)), step(name="two")))


def test_other_samples_and_other_options_do_not_change_the_key_of_a_stage(toy):
    keys = set()
    for options in ({}, {"toy": {"refuse": 1}}):
        request = RunSpec(benchmarks=("toy",), generator=toy.command(), options=options)
        stage = make_plan(request, staged(toy)).step("features-toy-reference")
        keys.add(stage.key({name: repr(source) for name, source in stage.inputs.items()}, "environment"))
    assert len(keys) == 1


def pairs_benchmark(toy) -> Catalog:
    benchmark = toy.catalog.benchmark("toy")
    changes = {"form": "pairs", "requests": {"kind": "pairs", "images": "toy-reference"}}
    options = {"options_type": PairOptions, "options": PairOptions().as_mapping()}
    return Catalog([dataclasses.replace(benchmark, **options, **changes)], {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairOptions(ScorerOptions):
    resize: str = "bicubic"
    ema: bool = True


def tokenizer(toy, **asked) -> TokenizerGenerator:
    path = write_model(toy.root / "tokenizer.pt", tiny.config(), parts=("vq",))
    context = DrawContext(project=toy.project, **asked)
    return TokenizerGenerator(source=Origin(said=str(path), path=path), context=context, code_digest="0")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """What is found about models is kept there."""
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))


def test_a_tokenizer_reconstructs_instead_of_drawing(toy):
    options = {"toy": {"resize": "bilinear", "ema": False}}
    generator = tokenizer(toy, options=options, limit=7)
    plan = make_plan(RunSpec(benchmarks=("toy",), generator=generator, options=options), pairs_benchmark(toy))
    assert [(row.name, row.needs) for row in plan.steps] == [
        ("reconstruct-toy", ()),
        ("score-toy", ("reconstruct-toy",)),
    ]
    line = " ".join(plan.steps[0].argv)
    assert "--image-size 8 --resize bilinear --limit 7 --no-ema" in line
    assert plan.steps[0].inputs["images"] == AssetInput("toy-reference")


def test_pairs_of_ones_own_are_scored_as_they_are(toy):
    (toy.root / "pairs.npz").touch()
    generator = existing_samples(toy.root / "pairs.npz")
    (score,) = make_plan(RunSpec(benchmarks=("toy",), generator=generator), pairs_benchmark(toy)).steps
    assert score.inputs["samples"] == FileInput(toy.root / "pairs.npz")


def test_generators_and_tokenizers_are_not_mixed_up(toy):
    with pytest.raises(UserError, match="scores pairs of images and their reconstructions"):
        make_plan(RunSpec(benchmarks=("toy",), generator=toy.command()), pairs_benchmark(toy))
    with pytest.raises(UserError, match="only reconstructs, but toy needs generated images"):
        make_plan(RunSpec(benchmarks=("toy",), generator=tokenizer(toy)), toy.catalog)


# --- what a request may say ------------------------------------------------------------------------------------------


def test_an_option_that_is_also_said_of_the_requests_changes_both(toy):
    """How many prompts of a pool, and which: the scorer looks for those that were drawn."""
    toy.edit("benchmarks/toy/interface.py", "scale: float = 1.0", "scale: float = 1.0\n    count: int = 12")
    toy.edit("benchmarks/toy/benchmark.yaml", "count: 12", "options: [count]")
    plan = toy.plan(options={"toy": {"count": 5, "scale": 2.0}})
    spec, options = plan.step("requests-toy").inputs["spec.json"], plan.step("score-toy").inputs["options.json"]
    wanted = {"kind": "classes", "count": 5, "num_classes": 3, "labels": "balanced"}
    assert isinstance(spec, Document) and spec.value["requests"] == wanted
    assert options == Document({"scale": 2.0, "refuse": 0, "count": 5})
    assert toy.run(options={"toy": {"count": 5}}).status == "finished" and toy.drawn() == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"limit": 10}, "--limit"),
        ({"run_seed": 3}, "--seed"),
        ({"protocol": {"cfg_scale": 4}, "limit": 10}, "--limit, --protocol cfg_scale"),
    ],
)
def test_what_would_change_nothing_about_samples_that_exist_is_refused(toy, given, named: str):
    (toy.root / "mine.npz").touch()
    with pytest.raises(UserError, match=f"leave out {named}, which would have no effect"):
        toy.plan(generator=existing_samples(toy.root / "mine.npz"), **given)


def test_a_tokenizer_goes_by_limit_and_image_size_and_by_nothing_else_of_the_protocol(toy):
    fields = {"benchmarks": ("toy",), "generator": tokenizer(toy, limit=7), "limit": 7}
    plan = make_plan(RunSpec(**fields, protocol={"image_size": 16}), pairs_benchmark(toy))
    assert "--image-size 16" in " ".join(plan.steps[0].argv)
    with pytest.raises(UserError, match="leave out --seed, --protocol top_k,"):
        make_plan(RunSpec(**fields, protocol={"image_size": 16, "top_k": 5}, run_seed=1), pairs_benchmark(toy))


# --- variants of a scorer --------------------------------------------------------------------------------------------


@pytest.fixture
def varied(toy):
    """The toy's scorer, which has another lock and a GPU where it is scaled by 3."""
    (toy.root / "benchmarks/toy/requirements-fast.lock").touch()
    variants = "{fast: {when: {scale: 3.0}, lock: requirements-fast.lock, gpus: 1, memory_gb: 7}}"
    toy.edit("benchmarks/toy/benchmark.yaml", "image: toy}", f"image: toy, variants: {variants}}}")
    return Catalog.load(toy.project)


def score_step(toy, catalog: Catalog, **options) -> Step:
    spec = RunSpec(benchmarks=("toy",), generator=toy.command(), options={"toy": options})
    return make_plan(spec, catalog).step("score-toy")


def test_an_option_can_choose_another_lock_and_other_resources(toy, varied):
    fast = score_step(toy, varied, scale=3.0)
    assert (fast.environment.name, fast.environment.lock) == ("toy-fast", "benchmarks/toy/requirements-fast.lock")
    assert (fast.resources.gpus, fast.resources.memory_gb, fast.resources.cpus) == (1, 7, 1)


def test_without_that_option_nothing_is_different(toy, varied):
    assert score_step(toy, varied, scale=2.0) == score_step(toy, toy.catalog, scale=2.0)


def test_the_lock_of_a_variant_is_not_code(toy, varied):
    assert not [name for name in toy.project.code_files(["benchmarks/toy"]) if name.endswith(".lock")]


def test_adm_needs_a_gpu_and_no_tensorflow_where_pytorch_evaluates_its_graph(monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)
    adm = Catalog.load(find_project()).benchmark("adm")
    locks = [one.scorer.lock for one in (adm, adm.for_options({"backend": "torch"}))]
    texts = [(adm.folder / lock).read_text() for lock in locks]
    assert [("tensorflow" in text, "\ntorch==" in text) for text in texts] == [(True, False), (False, True)]


def test_the_advice_on_memory_names_the_setting_that_governs_it(toy, varied):
    where = toy.root / "benchmarks/toy/benchmark.yaml"
    assert score_step(toy, varied).resources.advice == f"Raise scorer.memory_gb in {where}."
    assert score_step(toy, varied, scale=3.0).resources.advice == f"Raise scorer.variants.fast.memory_gb in {where}."

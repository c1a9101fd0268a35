"""`harness demo`: GEAR against its baseline on real handwritten digits, from training to a scored report, on a CPU.

The plan, which uses the same steps, store and runtimes as any other run:

    digits -> tokenizer (stage 0) -+-> GEAR end to end -> its AR model on the frozen tokenizer -> samples -> score
                                   +-> the same AR model on the stage-0 tokenizer, as many updates -> samples -> score

The numbers hold for models of this size only; the report says so, and shows them whether or not GEAR wins.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.text import Text

from gear.bench.environment import CORE, gear_code_digest
from harness import api
from harness.catalog.benchmarks import Benchmark, Catalog
from harness.catalog.project import Project, find_project
from harness.cli.base import Command, command_line, err, out, setting_options
from harness.contract.errors import UserError
from harness.contract.files import read_json
from harness.contract.npz import read_npz_array
from harness.contract.record import Metric, ScoreRecord
from harness.contract.samples import SampleSet
from harness.planning.make import RunSpec, make_plan
from harness.planning.steps import OutputOf, Plan, Resources, Source, Step
from harness.running.console import TerminalReporter
from harness.running.failures import exit_code
from harness.running.setting import make_setting
from harness.store.run_record import REPORT_FILE, RunRecord, read_score

GEAR, BASELINE = "GEAR", "LlamaGen-REPA"
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAIRS_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Optimizer updates of each stage, and images drawn per model. The baseline's AR gets e2e + ar updates."""

    tokenizer: int
    e2e: int
    ar: int
    images: int


FULL = Budget(tokenizer=400, e2e=300, ar=1000, images=1000)
QUICK = Budget(tokenizer=60, e2e=30, ar=30, images=100)


@click.command(cls=Command)
@click.option("--quick", is_flag=True, help="Takes a few minutes: every stage runs, the models learn little.")
@click.option("--name", help="Name of the run folder.  [default: from the plan]")
@click.option("--force", is_flag=True, help="Compute finished steps again.")
@setting_options
def demo(quick: bool, name: str | None, force: bool, **options: Any) -> None:
    """Train GEAR and its baseline on digits, sample and score.

    Needs no data and no GPU; takes about twelve minutes on two idle cores (`--quick`: three). If it is stopped or
    killed, the same command resumes it. Ends with a table, and runs/<name>/report.html.
    """
    project = find_project()
    catalog = Catalog.load(project)
    plan = demo_plan(project, catalog, QUICK if quick else FULL)
    setting = make_setting(project, catalog, **options)
    with TerminalReporter(err) as reporter:
        run = api.execute(plan, setting, force=force, name=name, progress=reporter, command=command_line())
    record, run_dir = run.record, run.folder
    if record.status == "finished":
        from harness.report.table import score_table

        for title, columns in _score_columns(record, run_dir, catalog).items():
            out.print(score_table(columns, title=title))
    out.print(Text(str(write_report(record, run_dir, catalog))), soft_wrap=True)
    sys.exit(exit_code(record))


# --- the plan --------------------------------------------------------------------------------------------------------


def demo_plan(project: Project, catalog: Catalog, budget: Budget) -> Plan:
    """All steps of the demo. Pure: nothing is run or written."""
    benchmark = catalog.benchmark("demo")
    training = _Training(identity={"code": gear_code_digest(project, training=True)})
    digits = training.step("digits", "the tinted digits as files", ("data", "digits"), kind="data")
    tokenizer = training.step(
        "tokenizer",
        "stage 0: warm up the tokenizer",
        ("train", "tokenizer", "--preset", "demo", "--set", f"stages.tokenizer.steps={budget.tokenizer}"),
        threads=2,
    )
    gear_e2e = training.step(
        "gear-e2e",
        "stage 1: GEAR, tokenizer and AR model end to end",
        ("train", "e2e", "--preset", "demo", "--set", f"stages.e2e.steps={budget.e2e}"),
        init=tokenizer,
    )
    gear_ar = training.step(
        "gear-ar",
        "stage 2: the AR model on GEAR's frozen tokenizer",
        ("train", "ar", "--preset", "demo", "--set", f"stages.ar.steps={budget.ar}"),
        init=gear_e2e,
    )
    baseline_ar = training.step(
        "baseline-ar",
        "baseline: the AR model on the stage-0 tokenizer",
        ("train", "ar", "--preset", "demo", "--set", f"stages.ar.steps={budget.e2e + budget.ar}"),
        tokenizer=tokenizer,
    )
    steps = [digits, tokenizer, gear_e2e, gear_ar, baseline_ar]
    requests, score = _benchmark_steps(benchmark, catalog, budget)
    steps.append(requests)
    for prefix, model in (("gear", gear_ar), ("baseline", baseline_ar)):
        samples = training.sample(f"{prefix}-samples", model, requests, benchmark)
        recon = training.step(
            f"{prefix}-recon", "reconstruct held-out digits", ("reconstruct", "digits"), tokenizer=model, resumes=False
        )
        scored = dataclasses.replace(
            score,
            name=f"{prefix}-score",
            inputs={
                **score.inputs,
                "samples": OutputOf(samples.name),
                "assets/demo-digits": OutputOf(digits.name),
            },
        )
        steps += [samples, recon, scored]
    return Plan(
        name="demo",
        steps=tuple(steps),
        generator={"name": "demo", "kind": "demo", "models": [GEAR, BASELINE]},
        options={"preset": "demo", **dataclasses.asdict(budget)},
    )


@dataclass(frozen=True)
class _Training:
    """Makes the steps that run gear; all of them are keyed by its code."""

    identity: Mapping[str, str]

    def step(
        self,
        name: str,
        title: str,
        arguments: tuple[str, ...],
        *,
        kind: str = "training",
        init: Step | None = None,
        tokenizer: Step | None = None,
        resumes: bool = True,
        threads: int = 1,
    ) -> Step:
        """`gear ARGUMENTS --out ...`, with the model files of earlier steps as `--init` and `--tokenizer`.

        The number of threads is fixed: the two models train side by side, each on one core, which is faster than one
        after the other on two; and the order of summation, and so the result, does not depend on the number of cores.
        """
        inputs: dict[str, Source] = {}
        for flag, step in (("init", init), ("tokenizer", tokenizer)):
            if step is not None:
                inputs[f"{flag}.pt"] = OutputOf(step.name, "model.pt")
                arguments = (*arguments, f"--{flag}", f"{{in}}/{flag}.pt")
        return Step(
            name=name,
            kind=kind,
            title=title,
            environment=CORE,
            argv=("{python}", "-m", "gear", "--quiet", "--threads", str(threads), *arguments, "--out", "{out}"),
            inputs=inputs,
            identity=self.identity,
            resources=Resources(cpus=threads, memory_gb=4.0),
            resumes=resumes,
            produces=("model.pt",) if kind == "training" and arguments[0] == "train" else (),
        )

    def sample(self, name: str, model: Step, requests: Step, benchmark: Benchmark) -> Step:
        """`gear sample` of a model that an earlier step trained."""
        flags = ("--ckpt", "{in}/model.pt", "--requests", "{in}/requests", "--form", benchmark.form)
        return Step(
            name=name,
            kind="sample",
            title="draw digits of every class",
            environment=CORE,
            argv=("{python}", "-m", "gear", "--quiet", "--threads", "1", "sample", *flags, "--out", "{out}"),
            inputs={"model.pt": OutputOf(model.name, "model.pt"), "requests": OutputOf(requests.name)},
            identity=self.identity,
            resources=Resources(cpus=1, memory_gb=4.0),
            resumes=True,
            benchmark=benchmark.id,
        )


class _Placeholder:
    """A generator without steps, for planning the benchmark's own steps; the demo adds its sampling steps itself."""

    name = "demo"
    draws_nothing = False
    heeds: frozenset[str] = frozenset()

    def describe(self) -> dict[str, Any]:
        return {}

    def draw(self, benchmark: Benchmark, requests: OutputOf | None) -> tuple[list[Step], Source]:
        assert requests is not None
        return [], requests


def _benchmark_steps(benchmark: Benchmark, catalog: Catalog, budget: Budget) -> tuple[Step, Step]:
    """The benchmark's own steps: what to draw, and scoring it."""
    everything = benchmark.requests["count"]
    limit = budget.images if budget.images < everything else None
    request = RunSpec(benchmarks=(benchmark.id,), generator=_Placeholder(), limit=limit)
    requests, score = make_plan(request, catalog).steps
    return requests, score


# --- the report ------------------------------------------------------------------------------------------------------


def write_report(record: RunRecord, run_dir: Path, catalog: Catalog) -> Path:
    """`report.html` of a demo run. An unfinished run gives a partial report, with a note on what is missing."""
    from harness.report.html import Report
    from harness.report.run import provenance, state_notes, timings
    from harness.report.sections import Prose, ScoreTable, Section

    sections: list[Section] = [*state_notes(run_dir, record)]
    if record.status == "finished":
        sections += [
            Prose(title="What this is", paragraphs=_introduction(record)),
            _grids(record, run_dir),
            *(
                ScoreTable(title=title, columns=tuple(columns))
                for title, columns in _score_columns(record, run_dir, catalog).items()
            ),
            _pairs(record, run_dir),
            *_curves(record, run_dir),
        ]
    sections += [timings(record), provenance(record, [], [])]
    title = "GEAR and its baseline on tinted digits"
    subtitle = f"{record.run}, {record.started[:16].replace('T', ' ')} UTC"
    return Report(title=title, subtitle=subtitle, sections=tuple(sections)).write(run_dir / REPORT_FILE)


def _introduction(record: RunRecord) -> tuple[str, ...]:
    options = record.options
    return (
        f"One tokenizer was warmed up for {options['tokenizer']} steps on 8,000 tinted handwritten digits. From there, "
        f"{GEAR} trained tokenizer and AR model end to end for {options['e2e']} steps and the AR model alone for "
        f"{options['ar']} more; {BASELINE} trained the same AR model for {options['e2e'] + options['ar']} steps on the "
        "frozen tokenizer. Same data order, batch size, teacher (EfficientNet-Lite0, ImageNet weights) and seed.",
        "The models are tiny and the training takes minutes: this report shows that all parts work together, and what "
        "was measured. It says nothing about the method at the scale of the paper.",
    )


def _output(record: RunRecord, run_dir: Path, step: str) -> Path:
    return run_dir / record.step(step).folder / "output"


def _score_columns(record: RunRecord, run_dir: Path, catalog: Catalog) -> dict[str, list[Any]]:
    """Title -> one column per model: the demo benchmark, and the tokenizers' reconstruction."""
    from harness.report.sections import ScoreColumn

    benchmark = catalog.benchmark("demo")
    models = (("gear", GEAR), ("baseline", BASELINE))
    drawn = [
        ScoreColumn(label=label, record=read_score(run_dir, record.step(f"{prefix}-score"))) for prefix, label in models
    ]
    rebuilt = [
        ScoreColumn(label=label, record=_recon_record(_output(record, run_dir, f"{prefix}-recon")))
        for prefix, label in models
    ]
    return {benchmark.title: drawn, "Reconstruction of held-out digits": rebuilt}


def _recon_record(folder: Path) -> ScoreRecord:
    """What `gear reconstruct` measured, as a score record, so that it is shown like every other number."""
    values = read_json(folder / "metrics.json")
    metrics = [
        Metric(name=name, label=label, value=values[name], unit=unit, higher_is_better=better, n=values["images"])
        for name, label, unit, better in (
            ("psnr", "PSNR", "dB", True),
            ("ssim", "SSIM", "", True),
            ("l1", "L1", "", False),
        )
    ]
    return ScoreRecord(benchmark="reconstruction", benchmark_version=1, metrics=metrics)


def _grids(record: RunRecord, run_dir: Path) -> Any:
    from harness.report.sections import Grid, class_grid

    models = []
    for prefix, label in (("gear", GEAR), ("baseline", BASELINE)):
        samples = SampleSet.open(_output(record, run_dir, f"{prefix}-samples"))
        if samples.labels is None:
            raise UserError(f"{label}'s samples carry no labels; run the demo again with --force.")
        labels = np.asarray(samples.labels)
        first = [int(i) for label_id in np.unique(labels) for i in np.flatnonzero(labels == label_id)[:8]]
        models.append(class_grid(label, samples.images(first), labels[first], DIGIT_NAMES))
    caption = "The first eight samples of every class, not selected. Both models sample with the same seeds."
    return Grid(title="Samples by class", models=tuple(models), caption=caption)


def _pairs(record: RunRecord, run_dir: Path) -> Any:
    from harness.report.sections import Pairs

    files = {
        label: _output(record, run_dir, f"{prefix}-recon") / "pairs.npz"
        for prefix, label in (("gear", f"{GEAR} tokenizer"), ("baseline", "stage-0 tokenizer"))
    }
    return Pairs(
        title="Reconstruction",
        originals=read_npz_array(next(iter(files.values())), "originals")[:PAIRS_SHOWN],
        reconstructions={label: read_npz_array(path, "reconstructions")[:PAIRS_SHOWN] for label, path in files.items()},
        caption="Held-out digits and their reconstructions from 64 tokens. The baseline keeps the stage-0 tokenizer.",
    )


def _curves(record: RunRecord, run_dir: Path) -> list[Any]:
    from gear.bench.training_curves import training_curves
    from harness.report.curves import read_curve

    def log(step: str) -> Path:
        return _output(record, run_dir, step) / "log.jsonl"

    frozen = {}
    for key in ("codebook/natural_entropy_nats", "reconstruction_loss"):
        frozen[key] = {BASELINE: read_curve(log("tokenizer"), key).last}
    return [
        training_curves(
            {GEAR: [log("gear-e2e"), log("gear-ar")], BASELINE: [log("baseline-ar")]},
            baseline=BASELINE,
            levels=frozen,
            title="Training",
            caption=f"{GEAR}'s first part is end to end, the rest on its frozen tokenizer. Horizontal lines: the "
            "frozen stage-0 tokenizer of the baseline at the end of its own training.",
        ),
        training_curves(
            {"both": [log("tokenizer")]},
            title="Tokenizer warm-up",
            caption="Stage 0, shared by both models.",
        ),
    ]

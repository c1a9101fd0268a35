"""GPIC benchmark: sample set in, FD-DINOv2, precision, recall, density, coverage and MMD out.

One feature stage, stored by the harness under the digest of samples and weights; the reference's features are
published. The score itself is only the arithmetic of `evaluation.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.gpic.evaluation import Evaluation, Reference, evaluate
from benchmarks.gpic.interface import METRICS, Options
from harness.contract.digest import sha256_file
from harness.contract.interface import Metrics
from harness.contract.record import Metric, ScoreRecord
from harness.contract.samples import SampleSet
from harness.metrics.interval import bootstrap_interval, wilson_interval
from harness.scoring.features import FeatureFile, read_features
from harness.scoring.scorer import FeatureJob, ScoreJob, describe_environment, run_scorer
from harness.scoring.screen import screen_samples

VERSION = 1
WEIGHTS = "dinov2-vitl14"
REFERENCE = "gpic-reference"
FULL_COUNT = 50_000


def score(job: ScoreJob[SampleSet]) -> ScoreRecord:
    options = Options.read(job.options, "gpic")
    found = screen_samples(job.samples, "gpic", at_least=options.prdc_k + 1, duplicates=options.duplicates)
    reference = Reference.read(job.assets.file(REFERENCE))
    evaluation = evaluate(read_features(job.stage("samples") / "features.npy"), reference, options)
    job.items.extend({"id": id_, "row": row} for row, id_ in enumerate(job.samples.ids))
    return ScoreRecord(
        benchmark="gpic",
        benchmark_version=VERSION,
        metrics=list(metrics(evaluation, len(job.samples), options)),
        digests={f"asset:{name}": sha256_file(job.assets.file(name)) for name in (WEIGHTS, REFERENCE)},
        environment=describe_environment(["scipy", "torch", "timm"]),
        options=options.as_mapping(),
        notes=[*found, *notes(len(job.samples), evaluation)],
    )


def sample_features(job: FeatureJob[SampleSet]) -> None:
    """`features.npy`: (N, 1024) float32 class tokens, in request order."""
    options = Options.read(job.options, "gpic")
    # The number of neighbours is not known in this stage: the score checks the count again.
    screen_samples(job.samples, "gpic", at_least=2, duplicates=options.duplicates)

    from benchmarks.gpic.dinov2 import DINOv2Features  # PyTorch: after the checks, which should take only seconds

    network, count = DINOv2Features(job.assets.file(WEIGHTS)), len(job.samples)
    features, progress = FeatureFile(job.out / "features.npy", count), job.progress(count, "images")
    for images_u8 in job.samples.batches(options.batch_size):
        features.append(network(images_u8))
        progress.advance(len(images_u8))
    features.finish()


def metrics(evaluation: Evaluation, count: int, options: Options) -> Iterator[Metric]:
    """Distances over all images; shares over the images that PRDC used, with their counts and intervals."""
    fd, make = evaluation.fd, Metrics(METRICS).make
    yield make("fd", fd.value, n=count)
    yield make("fd_mu", fd.mean_term, n=count)
    yield make("fd_sigma", fd.covariance_term, n=count)
    if evaluation.mmd is not None:
        yield make("mmd", evaluation.mmd, n=count)
    if evaluation.prdc is None or evaluation.inside is None:
        return
    balls = evaluation.inside.reference_balls
    for name, value in vars(evaluation.prdc).items():
        n = len(balls)
        interval = (
            bootstrap_interval(balls / options.prdc_k) if name == "density" else wilson_interval(round(value * n), n)
        )
        yield make(name, value, n=n, interval=interval)


def notes(count: int, evaluation: Evaluation) -> list[str]:
    found = []
    if count != FULL_COUNT:
        found.append(
            f"Computed from {count:,} images; published numbers use {FULL_COUNT:,}, and the distance falls as the "
            "count grows."
        )
    if evaluation.prdc is None:
        found.append("The reference file has no embeddings, so there are no precision, recall, density, coverage, MMD.")
    return found


if __name__ == "__main__":
    raise SystemExit(run_scorer(score, stages={"samples": sample_features}))

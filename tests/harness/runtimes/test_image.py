"""What a build reads is what its digest is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.catalog.benchmarks import Catalog
from harness.catalog.project import Project, find_project
from harness.contract.errors import UserError
from harness.planning.make import scorer_environment
from harness.planning.steps import Environment
from harness.runtimes.image import context_files, dockerfile_sources, image_digest

DOCKERFILE = """
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE} AS build
# COPY not/this
ARG BENCHMARK
ARG LOCK=requirements.lock
RUN --mount=type=bind,source=benchmarks/$BENCHMARK/${LOCK},target=/lock \\
    --mount=type=cache,target=/root/.cache/uv \\
    uv pip install -r /lock
FROM ${BASE_IMAGE}
COPY --from=build /opt/venv /opt/venv
COPY harness/__init__.py /app/harness/
COPY --chown=1:1 ./harness/contract/ \\
     /app/harness/contract/
COPY benchmarks/${BENCHMARK} /app/benchmarks/${BENCHMARK}
"""
TOY = Environment(name="toy", image="any", build_arguments=(("BENCHMARK", "toy"),))


ROOT = Path(__file__).parents[3]


def pins(lock: Path) -> dict[str, str]:
    """Package -> its line of the lock, without hashes."""
    lines = [line for line in lock.read_text().splitlines() if "==" in line and not line.startswith((" ", "#"))]
    return {line.partition("==")[0]: line for line in lines}


@pytest.fixture
def project(toy) -> Project:
    folder = toy.root / "docker" / "any"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (toy.root / "benchmarks/toy/requirements.lock").write_text("numpy==2.0\n")
    return toy.project


def test_copied_and_mounted_sources_are_found_and_stages_left_out():
    assert dockerfile_sources(DOCKERFILE, {"BENCHMARK": "toy"}) == [
        "benchmarks/toy/requirements.lock",
        "harness/__init__.py",
        "harness/contract",
        "benchmarks/toy",
    ]


def test_arguments_go_before_the_defaults_of_a_dockerfile_and_unknown_ones_stay():
    assert dockerfile_sources(DOCKERFILE, {"LOCK": "other.lock"})[0] == "benchmarks/$BENCHMARK/other.lock"


def test_the_context_is_what_the_dockerfile_names(project):
    names = set(context_files(project, TOY))
    assert {"docker/any/Dockerfile", "benchmarks/toy/requirements.lock", "benchmarks/toy/scorer.py"} <= names
    assert "harness/contract/files.py" in names and "harness/planning/steps.py" not in names


def test_the_digest_follows_everything_in_the_context(project, toy):
    other_lock = replace(TOY, build_arguments=(("BENCHMARK", "toy"), ("LOCK", "scorer.py")))
    seen = {image_digest(project, TOY, None), image_digest(project, TOY, "debian:12")}
    seen.add(image_digest(project, other_lock, None))
    for name, before, after in (
        ("docker/any/Dockerfile", "FROM", "from"),
        ("benchmarks/toy/requirements.lock", "2.0", "2.1"),
        ("benchmarks/toy/brightness.py", "mean", "max"),
    ):
        toy.edit(name, before, after)
        seen.add(image_digest(project, TOY, None))
    assert len(seen) == 6
    (toy.root / "benchmarks/toy/README.md").write_text("words")
    assert image_digest(project, TOY, None) in seen


def test_a_wildcard_is_refused(project, toy):
    toy.edit("docker/any/Dockerfile", "COPY benchmarks/${BENCHMARK} /", "COPY benchmarks/* /")
    with pytest.raises(UserError, match="without wildcards"):
        context_files(project, TOY)


def test_a_missing_argument_is_refused(project):
    with pytest.raises(UserError, match=r"copies 'benchmarks/\$BENCHMARK/requirements.lock'"):
        context_files(project, replace(TOY, build_arguments=()))


def test_a_missing_dockerfile_is_named(project):
    with pytest.raises(UserError, match="docker/nothing/Dockerfile"):
        context_files(project, replace(TOY, image="nothing"))


def test_a_missing_lock_is_named_with_the_benchmark(project, toy):
    (toy.root / "benchmarks/toy/requirements.lock").unlink()
    with pytest.raises(UserError, match=r"image of 'toy'.*benchmarks/toy/requirements.lock"):
        context_files(project, TOY)


def test_a_scorer_that_names_no_image_is_built_by_the_common_dockerfile(monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)
    catalog = Catalog.load(find_project())
    variant = scorer_environment(catalog.benchmark("geneval_long"))
    assert (variant.name, variant.image) == ("geneval", "scorer")
    assert dict(variant.build_arguments) == {"BENCHMARK": "geneval", "LOCK": "requirements.lock", "PYTHON": "3.11"}
    own = scorer_environment(catalog.benchmark("wise"))
    assert (own.name, own.image, own.build_arguments) == ("wise", "wise", ())


def test_scorers_with_pytorch_install_over_the_shared_layer_without_replacing_its_large_packages():
    """The lock's line for PyTorch is also what the Dockerfile goes by."""
    shared = pins(ROOT / "docker/scorer/torch.lock")
    large = {name for name in shared if name in {"torch", "torchvision", "triton"} or name.startswith("nvidia-")}
    with_pytorch = {path: pins(path) for path in ROOT.glob("benchmarks/*/requirements*.lock") if "torch" in pins(path)}
    assert len(with_pytorch) >= 5
    for path, own in with_pytorch.items():
        assert {name: own[name] for name in large & set(own)} == {name: shared[name] for name in large & set(own)}, path


def test_every_shipped_image_holds_the_code_of_its_scorers(monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)
    project = find_project()
    for benchmark in Catalog.load(project).benchmarks.values():
        for variant in ("", *benchmark.scorer.variants):
            environment = scorer_environment(benchmark.as_variant(variant))
            missing = set(project.code_files(environment.code)) - set(context_files(project, environment))
            assert not missing, f"the image of {environment.name} lacks {sorted(missing)[:3]}"

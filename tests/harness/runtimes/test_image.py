"""What a build reads is what its digest is made of."""

from __future__ import annotations

import pytest

from harness.catalog.benchmarks import Catalog
from harness.catalog.project import Project, find_project
from harness.contract.errors import UserError
from harness.planning.make import scorer_environment
from harness.runtimes.image import context_files, dockerfile_sources, image_digest

DOCKERFILE = """
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE} AS build
# COPY not/this
RUN --mount=type=bind,source=benchmarks/toy/requirements.lock,target=/lock \\
    --mount=type=cache,target=/root/.cache/uv \\
    uv pip install -r /lock
FROM ${BASE_IMAGE}
COPY --from=build /opt/venv /opt/venv
COPY harness/__init__.py /app/harness/
COPY --chown=1:1 ./harness/contract/ \\
     /app/harness/contract/
COPY benchmarks/toy /app/benchmarks/toy
"""


@pytest.fixture
def project(toy) -> Project:
    folder = toy.root / "docker" / "toy"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (toy.root / "benchmarks/toy/requirements.lock").write_text("numpy==2.0\n")
    return toy.project


def test_copied_and_mounted_sources_are_found_and_stages_left_out():
    assert dockerfile_sources(DOCKERFILE) == [
        "benchmarks/toy/requirements.lock",
        "harness/__init__.py",
        "harness/contract",
        "benchmarks/toy",
    ]


def test_the_context_is_what_the_dockerfile_names(project):
    names = set(context_files(project, "toy"))
    assert {"docker/toy/Dockerfile", "benchmarks/toy/requirements.lock", "benchmarks/toy/scorer.py"} <= names
    assert "harness/contract/files.py" in names and "harness/planning/steps.py" not in names


def test_the_digest_follows_everything_in_the_context(project, toy):
    seen = {image_digest(project, "toy", None), image_digest(project, "toy", "debian:12")}
    for name, before, after in (
        ("docker/toy/Dockerfile", "FROM", "from"),
        ("benchmarks/toy/requirements.lock", "2.0", "2.1"),
        ("benchmarks/toy/brightness.py", "mean", "max"),
    ):
        toy.edit(name, before, after)
        seen.add(image_digest(project, "toy", None))
    assert len(seen) == 5
    (toy.root / "benchmarks/toy/README.md").write_text("words")
    assert image_digest(project, "toy", None) in seen


def test_a_wildcard_is_refused(project, toy):
    toy.edit("docker/toy/Dockerfile", "COPY benchmarks/toy /", "COPY benchmarks/* /")
    with pytest.raises(UserError, match="outright"):
        context_files(project, "toy")


def test_a_missing_dockerfile_is_named(project):
    with pytest.raises(UserError, match="docker/nothing/Dockerfile"):
        context_files(project, "nothing")


def test_every_shipped_image_holds_the_code_of_its_scorers(monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS", raising=False)
    project = find_project()
    for benchmark in Catalog.load(project).benchmarks.values():
        environment = scorer_environment(benchmark)
        missing = set(project.code_files(environment.code)) - set(context_files(project, environment.image))
        assert not missing, f"{benchmark.id} runs in the image {environment.image}, which lacks {sorted(missing)[:3]}"

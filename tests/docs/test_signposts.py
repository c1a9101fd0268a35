"""Links, the files that other programs read, and the lines that have to agree with others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from harness import __version__
from harness.catalog.benchmarks import Catalog
from harness.catalog.plugins import COMMANDS
from harness.catalog.project import find_project
from harness.contract import errors
from tests.docs.pages import ROOT

TEXTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path):
    for link in _LINK.findall(path.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles], link


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages and all(f"({name})" in index for name in pages)


def test_pre_commit_runs_what_make_lint_runs():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    wanted = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    assert [hook["entry"] for hook in repo["hooks"]] == wanted
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in repo["hooks"])


def test_the_workflow_runs_ci_and_make():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    jobs = workflow["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert commands == ["make lint", "make test", "bash .ci/run"]
    script = (ROOT / ".ci/run").read_text()
    assert "make lint" in script and "make test" in script
    versions = {step["with"]["python-version"] for job in jobs for step in job["steps"] if "setup-python" in str(step)}
    assert versions == {"3.11"}


def test_the_workflow_of_reproducing_and_its_action_call_commands_that_there_are():
    jobs = yaml.safe_load((ROOT / ".github/workflows/reproduce.yml").read_text())["jobs"]
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    lines = [line.removeprefix(".venv/bin/harness ") for line in lines if "harness" in line]
    assert [line.split()[0] for line in lines] == ["demo", "freeze"]
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    given = jobs["check"]["steps"][-1]["with"]
    assert set(given) <= set(action["inputs"]) and (ROOT / given["tolerance"]).is_file()
    script = action["runs"]["steps"][-1]["run"]
    assert '"$harness" verify "$RECORD"' in script and '--against "$RECORD"' in script and "--tolerance" in script
    for line in [*lines, "verify RECORD", "check RUN --against RECORD --tolerance FILE"]:
        program, *words = line.split()
        COMMANDS.load(program).make_context(program, words)


def test_the_tolerances_of_the_demo_name_its_metrics():
    wanted = yaml.safe_load((ROOT / ".github/reproduce.yaml").read_text())
    assert set(wanted) == {"gear-score", "baseline-score"}
    metrics = {metric.name for metric in Catalog.load(find_project()).benchmark("demo").metrics}
    assert all(set(rows) == metrics for rows in wanted.values())


def test_the_citation_has_what_readers_of_the_format_need():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert {"title", "message", "authors", "license", "version"} <= set(citation)
    paper = citation["preferred-citation"]
    assert paper["type"] == "article" and "2606.32039" in paper["url"]
    assert all({"given-names", "family-names"} == set(author) for author in paper["authors"])
    assert citation["version"] == __version__


def test_the_change_log_knows_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{__version__}]" in text
    kinds = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_page_of_formats_has_every_exit_status():
    text = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    table = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    classes = (errors.UserError, errors.BadSamples, errors.MissingAsset, errors.EnvironmentFailure)
    known = {errors.EXIT_OK, errors.EXIT_DEFECT, errors.EXIT_PARTLY_SCORED, *(kind.exit_code for kind in classes)}
    assert known | {errors.EXIT_NOT_COMPARABLE, 75, 130} == table


def test_the_picture_is_small():
    assert (ROOT / "docs/images/demo-samples.png").stat().st_size < 150_000

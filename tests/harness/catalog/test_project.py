from __future__ import annotations

import pytest

from harness.catalog.project import PACKAGE_DIR, find_project, home_dir
from harness.contract.errors import UserError


def test_a_folder_of_ones_own_comes_first(toy):
    assert find_project().benchmarks_dir == toy.root / "benchmarks"


def test_the_current_folder_comes_before_the_checkout(toy, monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS")
    assert find_project().benchmarks_dir == toy.root / "benchmarks"


def test_no_benchmark_anywhere_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_BENCHMARKS", str(tmp_path))
    with pytest.raises(UserError, match="HARNESS_BENCHMARKS=DIR"):
        find_project()


def test_the_code_of_a_benchmark_is_its_program_and_not_its_texts(toy):
    names = list(toy.project.code_files(["benchmarks/toy"]))
    assert names == ["benchmarks/toy/brightness.py", "benchmarks/toy/interface.py", "benchmarks/toy/scorer.py"]


def test_the_digest_of_code_follows_names_and_contents(toy):
    before = toy.project.code_digest(["benchmarks/toy"])
    (toy.root / "benchmarks/toy/README.md").write_text("words")
    assert toy.project.code_digest(["benchmarks/toy"]) == before
    (toy.root / "benchmarks/toy/brightness.py").rename(toy.root / "benchmarks/toy/darkness.py")
    assert toy.project.code_digest(["benchmarks/toy"]) != before


def test_staged_code_is_a_copy_that_later_edits_do_not_reach(toy):
    staged = toy.project.stage_code(["benchmarks/toy", "harness/contract"], toy.home)
    assert (staged / "harness/contract/files.py").read_bytes() == (PACKAGE_DIR / "contract/files.py").read_bytes()
    toy.edit("benchmarks/toy/brightness.py", "mean", "max")
    assert "mean" in (staged / "benchmarks/toy/brightness.py").read_text()
    assert toy.project.stage_code(["benchmarks/toy", "harness/contract"], toy.home) != staged


def test_a_path_out_of_the_project_is_refused(toy):
    for relative in ("benchmarks/../../x", "benchmarks/nothing"):
        with pytest.raises(UserError):
            toy.project.path(relative)


def test_home_follows_its_variable(toy, monkeypatch):
    assert home_dir() == toy.root / "home"
    monkeypatch.delenv("HARNESS_HOME")
    assert home_dir().name == "gear-harness"

from __future__ import annotations

import os
import shutil

import pytest

from harness.catalog.benchmarks import Catalog
from harness.catalog.project import PACKAGE_DIR, find_project, home_dir
from harness.contract.errors import UserError


def test_a_named_folder_is_added_to_the_shipped_ones(toy):
    shipped, own = find_project().benchmark_dirs
    assert (shipped, own) == (PACKAGE_DIR.parent / "benchmarks", toy.root / "benchmarks")
    assert {"adm", "toy"} <= set(Catalog.load(find_project()).benchmarks)


def test_several_folders_may_be_named(toy, monkeypatch):
    other = toy.root / "more"
    shutil.copytree(toy.root / "benchmarks" / "toy", other / "toy2")
    monkeypatch.setenv("HARNESS_BENCHMARKS", os.pathsep.join([str(toy.root / "benchmarks"), str(other)]))
    assert find_project().path("benchmarks/toy2/scorer.py") == other / "toy2" / "scorer.py"


def test_two_benchmarks_of_one_name_are_named_both(toy, monkeypatch):
    (toy.root / "benchmarks" / "toy").rename(toy.root / "benchmarks" / "adm")
    with pytest.raises(UserError, match=f"{PACKAGE_DIR.parent / 'benchmarks/adm'} and {toy.root / 'benchmarks/adm'}"):
        find_project()


def test_the_current_folder_is_not_looked_into(toy, monkeypatch):
    monkeypatch.delenv("HARNESS_BENCHMARKS")
    assert find_project().benchmark_dirs == (PACKAGE_DIR.parent / "benchmarks",)


def test_a_named_folder_without_benchmarks_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_BENCHMARKS", str(tmp_path))
    with pytest.raises(UserError, match="correct HARNESS_BENCHMARKS, or make one: harness new benchmark"):
        find_project()


def test_the_code_of_a_benchmark_is_its_program_and_not_its_texts(toy):
    names = list(toy.project.code_files(["benchmarks/toy"]))
    assert names == [f"benchmarks/toy/{name}.py" for name in ("brightness", "interface", "recompute", "scorer")]


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


def test_staged_code_that_was_edited_is_staged_again(toy):
    staged = toy.project.stage_code(["benchmarks/toy"], toy.home)
    (staged / "benchmarks/toy/brightness.py").write_text("def brightness(image_u8): return 0.0")
    assert toy.project.stage_code(["benchmarks/toy"], toy.home) == staged
    assert "mean" in (staged / "benchmarks/toy/brightness.py").read_text()


def test_a_path_out_of_the_project_is_refused(toy):
    for relative in ("benchmarks/../../x", "benchmarks/nothing"):
        with pytest.raises(UserError):
            toy.project.path(relative)


def test_home_follows_its_variable(toy, monkeypatch):
    assert home_dir() == toy.root / "home"
    monkeypatch.delenv("HARNESS_HOME")
    assert home_dir().name == "gear-harness"

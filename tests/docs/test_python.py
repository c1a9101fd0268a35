"""The Python examples of the pages and of the API's docstrings are run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import api
from tests.docs.conftest import small_names
from tests.docs.pages import ROOT, blocks, docstring_examples

PAGES = ["docs/python-api.md", "docs/formats.md", "docs/train-gear.md"]


@pytest.fixture(scope="module", autouse=True)
def folder(world: Path) -> Path:
    return world


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run(page: str, capsys: pytest.CaptureFixture[str]):
    found = blocks(ROOT / page, "python")
    assert found
    for block in found:
        names = execute(block.text, page)
        if "code" in names:
            assert tuple(names["code"].code_ids.shape) == (256,)  # as the page says


@pytest.mark.parametrize("what", [harness, api, api.plan, api.run, api.score], ids=lambda what: what.__name__)
def test_the_examples_of_the_docstrings_run(what: object, capsys: pytest.CaptureFixture[str]):
    examples = docstring_examples(what.__doc__ or "")
    assert examples
    for example in examples:
        execute(example if "import harness" in example else f"import harness\n{example}", str(what))


def execute(code: str, where: str) -> dict[str, Any]:
    """Run an example as a script of its own, and return its names; its `python` is the one that runs the tests."""
    code = small_names(code).replace('"python my_model.py"', f'"{sys.executable} my_model.py"')
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, where, "exec"), names)
    return names

"""No command fails because of the terminal's encoding, and nobody's text acts on the terminal."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from harness.contract.record import ScoreRecord
from harness.running.terminal import terminal

ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "iso-8859-1"},
    "the C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "strict": {"PYTHONIOENCODING": "ascii:strict"},
}
CLEARS = "evil\x1b[2J\x1b]0;title\x07\x9b31m\u202etxt"


def call(toy, *words: object, **variables: str) -> tuple[int, bytes]:
    """Exit status and output of the command, as bytes."""
    harness = toy.harness(*words, env={**os.environ, **variables}, text=False)
    output, _ = harness.communicate(timeout=120)
    assert b"Traceback" not in output, output.decode(errors="replace")
    return harness.returncode, output


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_command_ends_as_it_would_anywhere(toy, encoding):
    variables = ENCODINGS[encoding]
    toy.edit("benchmarks/toy/benchmark.yaml", "Toy: how bright", "Toy ✓ τ 文: how bright")
    samples = toy.root / "bögen.npz"
    np.savez(samples, arr_0=np.full((5, 8, 8, 3), 7, np.uint8))
    words = ["--samples", samples, "--asset", f"toy-reference={toy.reference}"]
    assert call(toy, "score", "toy", *words, "--name", "mine", **variables)[0] == 0
    assert (toy.runs_dir / "mine" / "report.html").is_file()
    for shown in (["ls"], ["show", "mine"], ["show", "mine", "--json"], ["report", "mine"], ["compare", "mine"]):
        assert call(toy, *shown, **variables)[0] == 0, shown
    for form in ("csv", "markdown", "json"):
        assert call(toy, "export", "mine", "--to", form, **variables)[0] == 0, form
    assert call(toy, "doctor", **variables)[0] in (0, 6)
    assert call(toy, "plan", "--benchmark", "toy", *words, **variables)[0] == 0
    assert call(toy, "score", "toy", *words, "--dry-run", **variables)[0] == 0
    assert call(toy, "score", "tøy", *words, **variables)[0] == 2
    assert call(toy, "assets", "ls", **variables)[0] == 0
    for name in ("--help", "-h", "no-such-✓"):
        assert call(toy, name, **variables)[0] in (0, 2)


def test_marks_keep_their_meaning_in_ascii(toy):
    _, output = call(toy, "doctor", PYTHONIOENCODING="ascii")
    assert b"\n+  python" in output or output.startswith(b"+  python") or b"+ " in output, output


def test_a_file_whose_name_is_not_utf_8_is_scored_and_shown(toy):
    samples = toy.root / os.fsdecode(b"f\xff.npz")
    np.savez(samples, arr_0=np.full((5, 8, 8, 3), 7, np.uint8))
    asset = f"toy-reference={toy.reference}"
    status, output = call(toy, "score", "toy", "--samples", samples, "--asset", asset, "--name", "mine")
    assert status == 0, output
    assert call(toy, "show", "mine")[0] == 0
    json.loads((toy.runs_dir / "mine" / "record.json").read_text())


def acts(text: str) -> list[str]:
    """Characters of others' text that would reach the terminal raw; rich's own styles are no such."""
    return [letter for letter in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e") if letter in text]


def shown(*things: Any, **options: Any) -> str:
    stream = io.StringIO()
    console = terminal(file=stream, force_terminal=True, width=200, **options)
    for thing in things:
        console.print(thing)
        console.print(thing, soft_wrap=True)
    return stream.getvalue()


def test_text_of_others_does_not_act_on_the_terminal_in_whatever_it_is_shown():
    table = Table(CLEARS, title=CLEARS, caption=CLEARS)
    table.add_row(CLEARS)
    table.add_row(Text(CLEARS, "red"))
    text = shown(CLEARS, Text.assemble((CLEARS, "bold"), CLEARS), table)
    assert acts(text) == [] and "\\u001b[2J" in text and "\x1b[1m" in text


def test_markup_in_the_text_of_others_is_text():
    assert "[bold]a[/nothing]" in shown("[bold]a[/nothing]") and "[link=x]" in shown(_table("[link=x]y"))


def _table(cell: str) -> Table:
    table = Table()
    table.add_column("a")
    table.add_row(cell)
    return table


def test_a_bar_still_moves():
    stream = io.StringIO()
    with Progress(console=terminal(file=stream, force_terminal=True, width=80)) as bars:
        bars.update(bars.add_task("drawing", total=2), completed=2)
    assert "drawing" in stream.getvalue() and "100%" in stream.getvalue()


def test_no_command_passes_on_what_a_generator_a_scorer_and_a_label_say(toy):
    """The log, the record, the error and the score of others, through the real commands."""
    toy.edit("my_model.py", "arguments = parser", f"print({CLEARS!r})\narguments = parser")
    toy.edit("my_model.py", "I was told to fail", "I was told to fail \\x1b[2J\\x9b")
    toy.edit("benchmarks/toy/scorer.py", 'reason="asked to"', f"reason={CLEARS!r}")
    toy.edit("benchmarks/toy/scorer.py", "unscored=left_out", f"unscored=left_out, notes=[{CLEARS!r}]")
    toy.edit("benchmarks/toy/benchmark.yaml", "Toy: how bright", "Toy \\e[2J\\u202e")
    said = [call(toy, *toy.run_words(), "--name", "mine", "--set", "toy.refuse=1")]
    said += [call(toy, *toy.run_words("--fail", 3), "--name", "bad")]
    assert [status for status, _ in said] == [5, 3]
    score = next(toy.runs_dir.glob("mine/steps/*-score-toy/output"))
    assert "\x1b" in ScoreRecord.read(score).notes[0]
    for words in (
        ["show", "mine"],
        ["show", "mine", "--json"],
        ["show", "bad"],
        ["ls"],
        ["compare", "mine"],
        ["doctor"],
    ):
        said.append(call(toy, *words))
    said += [call(toy, "export", "mine", "--to", form) for form in ("csv", "markdown", "json")]
    assert [acts(output.decode()) for _, output in said] == [[]] * len(said)
    for log in toy.runs_dir.rglob("log.txt"):
        assert acts(log.read_text()) == []

import io
import json

from hypothesis import given
from hypothesis import strategies as st

from harness.contract.progress import Progress, ProgressLine, parse_line


def test_the_first_and_the_last_unit_are_always_reported():
    stream = io.StringIO()
    progress = Progress(1000, "images", stream)
    for _ in range(1000):
        progress.advance()
    lines = [parse_line(line) for line in stream.getvalue().splitlines()]
    assert all(lines)
    assert [(line.done, line.total, line.what) for line in (lines[0], lines[-1])] == [
        (0, 1000, "images"), (1000, 1000, "images")
    ]  # fmt: skip
    assert lines[-1].eta_s == 0


def test_reports_are_rate_limited():
    stream = io.StringIO()
    progress = Progress(10**6, "images", stream)
    for _ in range(2000):
        progress.advance()
    assert len(stream.getvalue().splitlines()) < 100


def test_nothing_done_has_no_eta():
    stream = io.StringIO()
    Progress(10, "images", stream)
    line = parse_line(stream.getvalue())
    assert line is not None
    assert line.eta_s is None


def test_progress_goes_to_stderr(capsys):
    Progress(1, "questions").advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 2


def test_a_line_is_read_back():
    line = '{"event":"progress","what":"images","done":3,"total":9,"elapsed_s":1.5,"eta_s":3}'
    assert parse_line(line) == ProgressLine(what="images", done=3, total=9, elapsed_s=1.5, eta_s=3.0)


@given(st.text() | st.recursive(st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(json.dumps))
def test_any_other_text_is_no_progress(line):
    assert parse_line(line) is None


def test_a_progress_event_with_nonsense_inside_is_no_progress():
    for row in ({"event": "progress"}, {"event": "progress", "what": 1, "done": "x", "total": [], "elapsed_s": None}):
        assert parse_line(json.dumps(row)) is None

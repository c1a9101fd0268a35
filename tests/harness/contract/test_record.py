import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contract.errors import UserError
from harness.contract.record import Metric, ScoreRecord, Unscored, read_items

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
METRICS = st.builds(
    Metric,
    name=TEXT,
    value=st.none() | FINITE,
    higher_is_better=st.booleans(),
    n=st.integers(0, 10**6),
    unit=st.just("") | TEXT,
    category=st.none() | TEXT,
    interval=st.none() | st.tuples(FINITE, FINITE),
    label=st.none() | TEXT,
)
RECORDS = st.builds(
    ScoreRecord,
    benchmark=TEXT,
    benchmark_version=st.integers(0, 9),
    metrics=st.lists(METRICS, max_size=4, unique_by=lambda metric: (metric.name, metric.category)),
    digests=st.dictionaries(TEXT, TEXT, max_size=2),
    environment=st.dictionaries(TEXT, TEXT, max_size=2),
    timings_s=st.dictionaries(TEXT, st.floats(0, 1e6), max_size=2),
    unscored=st.lists(st.builds(Unscored, id=TEXT, reason_class=TEXT, reason=TEXT), max_size=2),
    options=st.dictionaries(TEXT, st.booleans() | FINITE | TEXT, max_size=2),
    protocol=st.dictionaries(TEXT, FINITE, max_size=2),
    notes=st.lists(TEXT, max_size=2),
)


def record(**changes):
    gfid = Metric(name="gfid", value=3.5, higher_is_better=False, n=10, label="gFID", interval=(3.0, 4.0))
    return ScoreRecord(**{"benchmark": "adm", "benchmark_version": 1, "metrics": [gfid], **changes})


@settings(max_examples=40, deadline=None)
@given(RECORDS)
def test_what_is_written_is_read_back(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp("record")
    written.write(folder, [{"id": "a", "value": 1}])
    assert ScoreRecord.read(folder) == written
    assert list(read_items(folder)) == [{"id": "a", "value": 1}]


def test_numpy_values_are_written_as_plain_ones(tmp_path):
    metric = Metric(name="is", value=np.float32(1.5), higher_is_better=True, n=3)
    items = ({"id": str(i), "x": np.float64(i), "v": np.ones(2), "ok": np.bool_(True)} for i in range(2))
    record(metrics=[metric], environment={"count": np.int64(3)}, timings_s={"total": np.float32(0.5)}).write(
        tmp_path, items
    )
    again = ScoreRecord.read(tmp_path)
    assert (again.metric("is").value, again.environment, again.timings_s) == (1.5, {"count": 3}, {"total": 0.5})
    assert list(read_items(tmp_path))[1] == {"id": "1", "x": 1.0, "v": [1.0, 1.0], "ok": True}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_number_that_is_none_becomes_null_with_a_note(tmp_path, value):
    metric = Metric(name="gfid", value=value, higher_is_better=False, n=3, category="x", interval=(math.nan, 1.0))
    record(metrics=[metric], notes=["first"]).write(tmp_path, [{"score": value}])
    again = ScoreRecord.read(tmp_path)
    assert (again.metrics[0].value, again.metrics[0].interval) == (None, None)
    assert again.notes == ["first", f"gfid (x) is not a finite number ({float(value)}) and is written as null."]
    assert list(read_items(tmp_path)) == [{"score": None}]
    assert "NaN" not in (tmp_path / "score.json").read_text()


def test_writing_what_was_read_changes_nothing(tmp_path):
    record(metrics=[Metric(name="a", value=math.nan, higher_is_better=True, n=1)]).write(tmp_path / "a")
    ScoreRecord.read(tmp_path / "a").write(tmp_path / "b")
    assert (tmp_path / "a" / "score.json").read_bytes() == (tmp_path / "b" / "score.json").read_bytes()


def test_a_record_from_before_there_was_a_protocol_is_read(tmp_path):
    record(protocol={"cfg_scale": 1.5}).write(tmp_path)
    path = tmp_path / "score.json"
    row = json.loads(path.read_text())
    assert row.pop("protocol") == {"cfg_scale": 1.5}
    path.write_text(json.dumps(row))
    assert ScoreRecord.read(tmp_path).protocol == {}


def test_a_metric_is_found_by_name_and_category():
    parts = [Metric(name="acc", value=v, higher_is_better=True, n=1, category=c) for v, c in ((1, None), (2, "color"))]
    assert record(metrics=parts).metric("acc", "color").value == 2
    with pytest.raises(KeyError, match="adm has no metric 'acc'"):
        record(metrics=parts).metric("acc", "shape")


def test_a_metric_that_stands_twice_is_a_mistake_of_the_scorer():
    with pytest.raises(ValueError, match=r"'gfid' .* occurs twice"):
        record(metrics=[*record().metrics, *record().metrics])


def test_items_that_fail_in_the_middle_leave_no_score(tmp_path):
    def items():
        yield {"id": "a"}
        raise RuntimeError("the detector died")

    with pytest.raises(RuntimeError, match="detector"):
        record().write(tmp_path, items())
    with pytest.raises(UserError, match=r"score\.json: is missing, so the scorer did not finish"):
        ScoreRecord.read(tmp_path)


METRIC = {"name": "a", "value": 1, "higher_is_better": True, "n": 1}
DAMAGED = {
    "another kind of file": ({"format": "sample-set"}, "a different kind of file"),
    "a version from the future": ({"schema_version": 2}, "schema_version 2"),
    "no benchmark": ({"benchmark": None}, "benchmark"),
    "metrics that are no list": ({"metrics": {}}, "metrics"),
    "a metric without a direction": (
        {"metrics": [{"name": "a", "value": 1, "n": 1}]},
        r"score\.json: the field 'metrics\.0\.higher_is_better' is missing",
    ),
    "a metric of text": ({"metrics": [{"name": "a", "value": "1"}]}, r"metrics\.0\.value must be a number, not '1'"),
    "a metric that is no object": ({"metrics": [3.5]}, r"metrics\.0 must be a section with fields, not 3\.5"),
    "an interval of one": (
        {"metrics": [{"name": "a", "value": 1, "interval": [1]}]},
        r"metrics\.0\.interval must be a list of 2",
    ),
    "digests of numbers": ({"digests": {"samples": 3}}, r"digests\.samples must be text, not 3"),
    "timings of text": ({"timings_s": {"total": "1 s"}}, r"timings_s\.total must be a number, not '1 s'"),
    "an unscored item without a reason": (
        {"unscored": [{"id": "a", "reason_class": "b"}]},
        r"the field 'unscored\.0\.reason' is missing",
    ),
    "an unknown field": ({"extra": 1}, r"score\.json has no field 'extra'"),
    "notes of numbers": ({"notes": ["a", 3]}, r"notes\.1 must be text, not 3"),
    "a metric twice": ({"metrics": [METRIC, METRIC]}, r"score\.json: the metric 'a' .* occurs twice"),
    "a metric beyond all floats": ({"metrics": [{**METRIC, "value": 10**400}]}, r"metrics\.0\.value must be a finite"),
    "no items": ({"items": None}, "items"),
    "other items": ({"items": {"count": 1, "sha256": "0" * 64}}, r"items\.jsonl: does not match its sha256"),
}


@pytest.mark.parametrize(("changes", "sentence"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_is_refused_by_field(tmp_path, changes, sentence):
    record().write(tmp_path, [{"id": "a"}])
    path = tmp_path / "score.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=sentence):
        ScoreRecord.read(tmp_path)


def test_items_that_were_lost_or_cut_short_are_noticed(tmp_path):
    record().write(tmp_path, [{"id": "a"}, {"id": "b"}])
    path = tmp_path / "items.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match=r"items\.jsonl: does not match its sha256 in score\.json"):
        ScoreRecord.read(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"items\.jsonl: is missing"):
        ScoreRecord.read(tmp_path)

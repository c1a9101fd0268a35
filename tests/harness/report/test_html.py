from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.contract.record import Metric, ScoreRecord, Unscored
from harness.report.curves import Curve
from harness.report.html import Report
from harness.report.sections import (
    Curves,
    Facts,
    Gallery,
    Grid,
    GridRow,
    Level,
    ModelGrid,
    Note,
    Pairs,
    Panel,
    Prose,
    Provenance,
    Published,
    ScoreColumn,
    ScoreTable,
    Section,
    Series,
    Timing,
    Timings,
    class_grid,
)

ReadPage = Callable[[str], Any]
MakeRecord = Callable[..., ScoreRecord]
MakeMetric = Callable[..., Metric]
Pictures = Callable[..., np.ndarray]

ATTACK = "<script>alert('x')</script><img src=http://evil.example/x onerror=y>\"'&{{7*7}}"


def curve(*values: float) -> Curve:
    return Curve(steps=np.arange(1.0, len(values) + 1), values=np.array(values))


def render(*sections: Section, title: str = "A report", subtitle: str = "") -> str:
    return Report(title=title, subtitle=subtitle, sections=sections).render()


@pytest.fixture
def everything(make_record: MakeRecord, metric: MakeMetric, pictures: Pictures) -> tuple[Section, ...]:
    """Every kind of section, with an attack in every string."""
    record = make_record(
        metric(ATTACK, 1.0, True, label=ATTACK, unit=ATTACK, category=ATTACK),
        metric("named", 2.0, False),
        benchmark=ATTACK,
        unscored=[Unscored(id=ATTACK, reason_class=ATTACK, reason=ATTACK)],
        notes=[ATTACK],
    )
    columns = (ScoreColumn(label=ATTACK, record=record), ScoreColumn(label="base", record=record))
    series = (Series(label=ATTACK, curve=curve(3, 2, math.nan)), Series(label="empty", curve=Curve()))
    panel = Panel(title=ATTACK, series=series, levels=(Level(label="base", value=1.0),), unit=ATTACK, note=ATTACK)
    published = (Published(model=ATTACK, source=ATTACK, protocol=ATTACK, metrics={"named": 1.5}),)
    facts = (Facts(title=ATTACK, values={ATTACK: {ATTACK: ATTACK}, "list": [ATTACK]}),)
    model = ModelGrid(label=ATTACK, rows=(GridRow(label=ATTACK, images=pictures(2)),))
    return (
        Prose(title=ATTACK, paragraphs=(ATTACK,)),
        Note(title=ATTACK, text=ATTACK, details=ATTACK),
        ScoreTable(title=ATTACK, columns=columns, published=published, caption=ATTACK),
        ScoreTable(title=ATTACK, columns=columns[:1], published=published),
        Curves(title=ATTACK, panels=(panel,), x_label=ATTACK, caption=ATTACK, findings=(ATTACK,)),
        Grid(title=ATTACK, models=(model,), caption=ATTACK),
        Pairs(title=ATTACK, originals=pictures(2), reconstructions={ATTACK: pictures(2)}, caption=ATTACK),
        Gallery(title=ATTACK, images=pictures(1), captions=(ATTACK,), caption=ATTACK),
        Timings(
            title=ATTACK, timings=(Timing(stage=ATTACK, seconds=1.0, status=ATTACK, model=ATTACK),), caption=ATTACK
        ),
        Provenance(title=ATTACK, commands=(ATTACK,), facts=facts, caption=ATTACK),
    )


# Safety


def test_strings_from_outside_stay_text(everything: tuple[Section, ...], read_page: ReadPage) -> None:
    page = read_page(render(*everything, title=ATTACK, subtitle=ATTACK))
    assert "script" not in page.tags
    assert page.handlers == []
    assert "alert('x')" in page.text
    assert "{{7*7}}" in page.text
    assert "{{49}}" not in page.html


def test_a_page_loads_nothing(everything: tuple[Section, ...], read_page: ReadPage) -> None:
    page = read_page(render(*everything, title=ATTACK))
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert {"link", "script", "iframe", "object", "embed", "base", "form"}.isdisjoint(page.tags)
    assert re.findall(r"@import|@font-face|url\((?!#)", page.html) == []


def test_a_page_forbids_the_browser_to_load_anything() -> None:
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in render()


def test_links_and_ids_of_a_page_fit_together(everything: tuple[Section, ...], read_page: ReadPage) -> None:
    page = read_page(render(*everything))
    assert len(page.ids) == len(set(page.ids))
    links = {address[1:] for address in page.addresses if address.startswith("#")}
    assert links
    assert links <= set(page.ids)


def test_the_same_data_makes_the_same_page(everything: tuple[Section, ...]) -> None:
    assert render(*everything) == render(*everything)


def test_a_page_is_one_html_document_that_knows_dark_print_and_phones() -> None:
    html = render()
    assert html.lstrip().startswith("<!doctype html>")
    assert 'name="viewport"' in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(TypeError, match="no section of type int"):
        render(3)  # type: ignore[arg-type]


def test_a_note_is_of_a_known_kind() -> None:
    with pytest.raises(ValueError, match="gossip"):
        Note(text="psst", kind="gossip")


# Nothing to show


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        (ScoreTable(title="t", columns=()), "No metric was recorded."),
        (Curves(title="t", panels=()), "No training curve was recorded."),
        (
            Curves(title="t", panels=(Panel(title="Loss", series=(Series(label="a", curve=Curve()),)),)),
            "Not logged for a.",
        ),
        (Grid(title="t", models=()), "There are no samples to show."),
        (Grid(title="t", models=(ModelGrid(label="a", rows=()),)), "There are no samples to show."),
        (
            Pairs(title="t", originals=np.empty((0, 8, 8, 3), np.uint8), reconstructions={}),
            "no reconstructions to show",
        ),
        (Gallery(title="t", images=np.empty((0, 8, 8, 3), np.uint8), captions=()), "There are no samples to show."),
        (Timings(title="t", timings=()), "No time was recorded."),
        (Provenance(), "No provenance was recorded for these numbers."),
    ],
)
def test_an_empty_section_says_so(section: Section, sentence: str, read_page: ReadPage) -> None:
    assert sentence in read_page(render(section)).text


def test_an_empty_report_says_so(read_page: ReadPage) -> None:
    assert "This report is empty" in read_page(render()).text


# Scores


def two_columns(make_record: MakeRecord, ours: Any, theirs: Any, **rest: Any) -> ScoreTable:
    columns = (
        ScoreColumn(label="GEAR", record=make_record(ours, **rest)),
        ScoreColumn(label="base", record=make_record(theirs)),
    )
    return ScoreTable(title="Scores", columns=columns)


def bold_cells(html: str) -> list[str]:
    return re.findall(r'<td class="num wins"><data value="([^"]+)"', html)


def test_the_better_value_is_bold(make_record: MakeRecord) -> None:
    html = render(two_columns(make_record, ("fid", 4.0, False), ("fid", 3.0, False)))
    assert bold_cells(html) == ["3.0"]


def test_within_the_interval_nothing_is_bold(make_record: MakeRecord, metric: MakeMetric, read_page: ReadPage) -> None:
    ours = metric("acc", 0.80, True, interval=(0.78, 0.82))
    theirs = metric("acc", 0.81, True, interval=(0.79, 0.83))
    html = render(two_columns(make_record, ours, theirs))
    assert bold_cells(html) == []
    assert "within the interval" in read_page(html).text
    assert "[0.780, 0.820]" in read_page(html).text


def test_the_page_says_in_words_who_won(make_record: MakeRecord, read_page: ReadPage) -> None:
    html = render(two_columns(make_record, ("fid", 4.0, False), ("fid", 3.0, False)))
    assert "base is better on 1: fid ↓ (3.00 against 4.00); GEAR on none." in read_page(html).text


def test_a_missing_number_is_called_so_and_its_reason_is_shown(
    make_record: MakeRecord, tmp_path: Path, read_page: ReadPage
) -> None:
    make_record(("is", math.nan, True)).write(tmp_path)
    record = ScoreRecord.read(tmp_path)
    text = read_page(render(ScoreTable(title="t", columns=(ScoreColumn(label="a", record=record),)))).text
    assert "not a number" in text
    assert "is is not a finite number" in text


def test_counts_travel_with_the_numbers(make_record: MakeRecord, metric: MakeMetric, read_page: ReadPage) -> None:
    same = read_page(render(two_columns(make_record, ("a", 1.0, True), ("a", 2.0, True)))).text
    assert same.count("n = 2,000") == 1
    other = metric("a", 2.0, True, n=1990)
    different = read_page(render(two_columns(make_record, ("a", 1.0, True), other))).text
    assert "n = 2,000" in different
    assert "n = 1,990" in different


def test_unscored_items_are_counted_by_reason_with_examples(make_record: MakeRecord, read_page: ReadPage) -> None:
    unscored = [Unscored(id=f"q{i}", reason_class="timeout", reason="The judge was silent.") for i in range(7)]
    html = render(two_columns(make_record, ("a", 1.0, True), ("a", 1.0, True), unscored=unscored))
    text = read_page(html).text
    assert "7 not scored for GEAR: timeout." in text
    assert "q4 The judge was silent." in text
    assert "q5" not in text
    assert "and 2 more in score.json" in text


def test_a_single_result_has_value_unit_interval_and_count(
    make_record: MakeRecord, metric: MakeMetric, read_page: ReadPage
) -> None:
    record = make_record(metric("psnr", 20.5, True, unit="dB", interval=(20.1, 20.9), label="PSNR", n=50_000))
    text = read_page(render(ScoreTable(title="t", columns=(ScoreColumn(label="a", record=record),)))).text
    for part in ("PSNR", "↑", "20.50", "dB", "[20.10, 20.90]", "50,000"):
        assert part in text


def test_published_values_keep_their_digits_and_their_protocol(make_record: MakeRecord, read_page: ReadPage) -> None:
    record = make_record(("gfid", 3.94, False), ("unheard_of", 1.0, True))
    published = (Published(model="ADM-G", source="README", protocol="cfg 1.0", metrics={"gfid": 4.6, "sfid": 5.0}),)
    table = ScoreTable(title="t", columns=(ScoreColumn(label="ours", record=record),), published=published)
    page = read_page(render(table))
    assert "ADM-G cfg 1.0; README" in page.text.replace("ADM-Gcfg", "ADM-G cfg")
    assert '<td class="num">4.6</td>' in page.html
    assert page.text.count("unheard_of") == 1


# Curves, pictures, time


def test_a_model_has_one_colour_throughout(make_record: MakeRecord, pictures: Pictures) -> None:
    panel = Panel(
        title="Loss", series=(Series(label="base", curve=curve(3, 2)), Series(label="GEAR", curve=curve(3, 1)))
    )
    html = render(
        two_columns(make_record, ("a", 1.0, True), ("a", 2.0, True)),
        Curves(title="Training", panels=(panel,)),
        Timings(title="Time", timings=(Timing(stage="train", seconds=1.0, model="base"),)),
    )
    swatches = re.findall(r'stroke="var\(--(model-\d)\)"[^>]*/></svg>(?:&nbsp;|\s)*(\w+)', html)
    assert set(swatches) == {("model-0", "GEAR"), ("model-1", "base")}
    assert '<tbody class="model-1">' in html


def test_what_a_curve_hides_is_said(read_page: ReadPage) -> None:
    flawed = Curve(steps=np.array([1.0, 2.0, 3.0]), values=np.array([3.0, np.nan, 2.0]), unreadable_lines=2)
    series = (Series(label="a", curve=flawed), Series(label="b", curve=Curve()))
    text = read_page(render(Curves(title="t", panels=(Panel(title="Loss", series=series),)))).text
    assert "a: 1 value not a finite number, first at step 2." in text
    assert "a: 2 lines of the log left out" in text
    assert "Not logged for b." in text


def test_a_curve_of_nothing_but_nan_is_not_drawn(read_page: ReadPage) -> None:
    series = (Series(label="a", curve=curve(math.nan, math.nan)),)
    page = read_page(render(Curves(title="t", panels=(Panel(title="Loss", series=series),))))
    assert "svg" not in page.tags
    assert "2 values not a finite number" in page.text


def test_samples_are_sorted_into_rows_by_class(pictures: Pictures) -> None:
    images, labels = pictures(7), [1, 0, 1, 5, 1, 0, 1]
    model = class_grid("GEAR", images, labels, ["zero", "one"], per_class=3)
    assert [row.label for row in model.rows] == ["zero", "one", "5"]
    assert [len(row.images) for row in model.rows] == [2, 3, 1]
    assert (model.rows[1].images == images[[0, 2, 4]]).all()


def test_labels_must_fit_the_images(pictures: Pictures) -> None:
    with pytest.raises(ValueError, match="2 images but 3 labels"):
        class_grid("GEAR", pictures(2), [0, 1, 2])


def test_pairs_must_be_pairs(pictures: Pictures) -> None:
    with pytest.raises(ValueError, match="base: 3 reconstructions of 2 originals"):
        Pairs(title="t", originals=pictures(2), reconstructions={"base": pictures(3)})


def test_a_total_leaves_out_what_was_there_already(read_page: ReadPage) -> None:
    timings = (Timing(stage="a", seconds=100.0, status="cached", ran=False), Timing(stage="b", seconds=20.0))
    page = read_page(render(Timings(title="t", timings=timings)))
    assert "total without cached20.0 s" in page.text.replace(" 20.0", "20.0")
    assert page.html.count('class="idle"') == 1


def test_tables_and_figures_are_numbered_in_reading_order(make_record: MakeRecord, read_page: ReadPage) -> None:
    table = two_columns(make_record, ("a", 1.0, True), ("a", 2.0, True))
    panel = Panel(title="Loss", series=(Series(label="GEAR", curve=curve(3, 2)),))
    figure = Curves(title="t", panels=(panel,))
    text = read_page(render(table, figure, table, figure)).text
    assert re.findall(r"(Table|Figure) (\d)\.", text) == [
        ("Table", "1"),
        ("Figure", "1"),
        ("Table", "2"),
        ("Figure", "2"),
    ]


def test_nested_configuration_is_shown_with_dotted_names(read_page: ReadPage) -> None:
    values = {"training": {"lr": {"ar": 1e-4}}, "ema": True, "tap": None, "sizes": [1, 2], "empty": {}}
    text = read_page(render(Provenance(facts=(Facts(title="Configuration", values=values),)))).text
    for part in ("training.lr.ar0.0001", "emayes", "tapnone", "sizes[1, 2]", "empty{}"):
        assert part in text


def test_a_report_is_written_as_a_file(tmp_path: Path) -> None:
    report = Report(title="Grüße", sections=())
    path = report.write(tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == report.render()

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from harness.report.curves import Curve
from harness.report.plots import MOST_POINTS, panel_svg, spread, swatch_svg, thin
from harness.report.sections import Level, Panel, Series


def make_panel(num_points: int = 60, title: str = "Loss", log_y: bool = False) -> Panel:
    steps = np.arange(1.0, num_points + 1)
    one = Curve(steps=steps, values=1 + 5 / steps)
    other = Curve(steps=steps, values=1 + 9 / steps)
    return Panel(title=title, series=(Series(label="a", curve=one), Series(label="b", curve=other)), log_y=log_y)


def draw(panel: Panel, name: str = "plot-1") -> str:
    return panel_svg(panel, x_label="optimizer step", colours={"a": 0, "b": 1}, name=name)


def test_a_panel_is_well_formed_svg_with_a_name() -> None:
    svg = ElementTree.fromstring(draw(make_panel(title='A "loss" <b>')))
    assert svg.tag == "svg"
    assert svg.attrib["aria-label"] == 'A "loss" <b>'


def test_colours_and_fonts_are_left_to_the_page() -> None:
    svg = draw(make_panel())
    assert "var(--model-0)" in svg
    assert "var(--model-1)" in svg
    assert re.findall(r"#[0-9a-fA-F]{6}\b", svg) == []
    assert set(re.findall(r"font-family: ([^;\"]+)", svg)) == {"var(--sans)"}


def test_a_panel_has_no_address_and_only_the_ids_it_uses() -> None:
    svg = draw(make_panel())
    assert "http" not in svg
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    assert set(re.findall(r' id="([^"]+)"', svg)) == used


def test_panels_of_one_page_share_no_id_and_the_same_panel_is_the_same_text() -> None:
    def ids(svg: str) -> set[str]:
        return set(re.findall(r' id="([^"]+)"', svg))

    assert ids(draw(make_panel(), "plot-1")).isdisjoint(ids(draw(make_panel(), "plot-2")))
    assert draw(make_panel()) == draw(make_panel())


def test_the_last_values_are_written_beside_the_lines() -> None:
    texts = [element.text for element in ElementTree.fromstring(draw(make_panel(5))).iter("text")]
    assert "2.00" in texts
    assert "2.80" in texts


def test_raw_and_smoothed_lines_are_both_there_only_where_something_was_smoothed() -> None:
    assert "opacity" in draw(make_panel(60))
    assert "opacity" not in draw(make_panel(10))


def test_one_point_and_a_level_line_can_be_drawn() -> None:
    point = Series(label="a", curve=Curve(steps=np.array([1.0]), values=np.array([2.0])))
    assert ">0.70</text>" in draw(Panel(title="t", series=(point,), levels=(Level(label="b", value=0.7),)))
    assert "var(--model-1)" in draw(Panel(title="t", series=(), levels=(Level(label="b", value=0.7),)))


def test_a_gap_of_nan_and_a_log_axis_can_be_drawn() -> None:
    panel = make_panel(60, log_y=True)
    panel.series[0].curve.values[10:20] = np.nan
    ElementTree.fromstring(draw(panel))


def test_a_flat_curve_can_be_drawn() -> None:
    curve = Curve(steps=np.arange(3.0), values=np.zeros(3))
    ElementTree.fromstring(draw(Panel(title="t", series=(Series(label="a", curve=curve),))))


def test_long_curves_stay_light() -> None:
    assert len(draw(make_panel(200_000))) < 3 * len(draw(make_panel(MOST_POINTS)))


def test_thinning_keeps_the_extremes() -> None:
    values = np.zeros(10_000)
    values[1234], values[8765] = 7.0, -7.0
    steps, kept = thin(np.arange(10_000.0), values)
    assert len(steps) <= MOST_POINTS
    assert (kept.max(), kept.min()) == (7.0, -7.0)
    assert (np.diff(steps) > 0).all()


def test_no_global_state_of_pyplot_is_touched() -> None:
    draw(make_panel())
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("heights", [[0.5, 0.5], [0.1, 0.11, 0.9], [0.3, 0.2, 0.25, 0.28]])
def test_labels_are_moved_apart_in_order(heights: list[float]) -> None:
    moved = spread(heights, gap=0.1)
    assert np.diff(sorted(moved)).min() >= 0.1 - 1e-9
    assert np.argsort(moved, kind="stable").tolist() == np.argsort(heights, kind="stable").tolist()


def test_labels_that_do_not_touch_stay() -> None:
    assert spread([0.9, 0.1], gap=0.1) == [0.9, 0.1]
    assert spread([], gap=0.1) == []


def test_models_differ_by_more_than_colour() -> None:
    dashes = [re.findall(r'stroke-dasharray="([^"]+)"', swatch_svg(i)) for i in range(4)]
    assert len({tuple(dash) for dash in dashes}) == 4

"""Curves as inline SVG that follows the page: text in the page's font, colours as CSS variables (light, dark, print).

Matplotlib draws with placeholder colours, one per role, and `_themed` puts `var(--role)` in their place. Figures are
made directly, never through pyplot, so nothing is registered anywhere and a report can be drawn from any thread.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import NDArray

from harness.report.curves import Curve, smooth, smoothing_span
from harness.report.formats import format_together
from harness.report.sections import Panel

MOST_POINTS = 400
"""Points of a drawn line: more than one per pixel only makes the page larger."""

NUM_COLOURS = 6
DASHES: tuple[str | tuple[float, tuple[float, ...]], ...] = (
    "solid",
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (6, 1.6, 1.2, 1.6)),
    (0, (9, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
"""Line styles by model, so that colour is never the only difference (print, colour blindness)."""

_INK, _MUTED, _RULE, _PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
_ROLES = {_INK: "ink", _MUTED: "muted", _RULE: "rule", _PAPER: "paper"} | {
    f"#0a0c{i:02x}": f"model-{i}" for i in range(NUM_COLOURS)
}
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.0,
    "axes.edgecolor": _MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 7.5,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "ytick.minor.size": 0.0,
    "grid.color": _RULE,
    "grid.linewidth": 0.7,
    "text.parse_math": False,
}


def panel_svg(panel: Panel, *, x_label: str, colours: Mapping[str, int], name: str) -> str:
    """Draw one panel.

    Args:
        panel: at least one series with a finite value, or a level.
        x_label: what the x axis counts.
        colours: model label -> index below NUM_COLOURS.
        name: unique in the page; keeps the clip paths of several figures apart.
    """
    with matplotlib.rc_context(_RC | {"svg.hashsalt": name}):
        figure = Figure(figsize=(4.3, 2.65))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.105, 0.165, 0.765, 0.80))
        ends = []
        for series in panel.series:
            ends += _draw_series(axes, series.curve, colours[series.label])
        for level in panel.levels:
            ends += _draw_level(axes, level.value, colours[level.label])
        _finish(axes, x_label, log_y=panel.log_y)
        _label_ends(axes, ends)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _themed(buffer.getvalue(), title=panel.title)


def swatch_svg(colour: int) -> str:
    """A short line in a model's colour and style, for legends and table heads."""
    style = DASHES[colour % NUM_COLOURS]
    # The same proportions as in the panels, at the width of a legend.
    dashes = "" if isinstance(style, str) else ' stroke-dasharray="' + " ".join(f"{1.9 * d:g}" for d in style[1]) + '"'
    return (
        '<svg class="swatch" viewBox="0 0 24 8" width="24" height="8" aria-hidden="true">'
        f'<path d="M1 4H23" stroke="var(--model-{colour % NUM_COLOURS})" stroke-width="2.4"{dashes}/></svg>'
    )


def thin(steps: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reduce a noisy line to about MOST_POINTS by keeping the lowest and the highest point of every stretch."""
    if len(steps) <= MOST_POINTS:
        return steps, values
    kept: list[int] = []
    for stretch in np.array_split(np.arange(len(steps)), MOST_POINTS // 2):
        finite = stretch[np.isfinite(values[stretch])]
        if len(finite):
            kept += sorted({int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])})
    return steps[kept], values[kept]


def _draw_series(axes: Axes, curve: Curve, colour: int) -> list[tuple[float, float, int]]:
    """Draw the raw line faintly, the smoothed one on top, a dot at its end; return the end for its label."""
    finite = np.isfinite(curve.values)
    if not finite.any():
        return []
    stroke, dashes = _stroke(colour)
    smoothed = smooth(curve.values)
    if smoothing_span(len(curve)) > 1:
        axes.plot(*thin(curve.steps, curve.values), color=stroke, alpha=0.28, linewidth=0.7, solid_joinstyle="round")
    line_steps, line_values = curve.steps, smoothed
    if len(curve) > MOST_POINTS:
        picked = np.unique(np.linspace(0, len(curve) - 1, MOST_POINTS).round().astype(int))
        line_steps, line_values = curve.steps[picked], smoothed[picked]
    axes.plot(line_steps, line_values, color=stroke, linewidth=1.7, linestyle=dashes, dash_capstyle="butt")
    last = int(np.flatnonzero(finite)[-1])
    end = (float(curve.steps[last]), float(smoothed[last]), colour)
    axes.plot(end[0], end[1], "o", color=stroke, markersize=3.4, clip_on=False, zorder=5)
    return [end]


def _draw_level(axes: Axes, value: float, colour: int) -> list[tuple[float, float, int]]:
    stroke, dashes = _stroke(colour)
    axes.axhline(value, color=stroke, linewidth=1.3, linestyle=dashes)
    return [(math.inf, value, colour)]


def _finish(axes: Axes, x_label: str, *, log_y: bool) -> None:
    axes.margins(x=0.0, y=0.08)
    axes.grid(axis="y")
    axes.set_xlabel(x_label, labelpad=3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    if log_y:
        axes.set_yscale("log")
        return
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    plain = ScalarFormatter(useOffset=False)
    plain.set_powerlimits((-4, 6))
    axes.yaxis.set_major_formatter(plain)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, float, int]]) -> None:
    """Write each line's last value to the right of the plot, moved apart where they would touch."""
    if not ends:
        return
    texts = format_together([value for _, value, _ in ends])
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((axes.get_xlim()[1], value))[1]) for _, value, _ in ends]
    for (_, _, colour), text, height in zip(ends, texts, spread(heights, gap=0.075), strict=True):
        stroke, _ = _stroke(colour)
        axes.text(1.025, height, text, transform=axes.transAxes, color=stroke, va="center", fontweight="bold")


def spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Move values apart until neighbours differ by `gap` or more, keeping the order and the middle of each cluster."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    clusters: list[tuple[float, list[int]]] = []
    for index in order:
        clusters.append((heights[index], [index]))
        while len(clusters) > 1 and _top(clusters[-2], gap) + gap > _bottom(clusters[-1], gap):
            (middle_a, a), (middle_b, b) = clusters[-2:]
            middle = (middle_a * len(a) + middle_b * len(b)) / (len(a) + len(b))
            clusters[-2:] = [(middle, a + b)]
    moved = list(heights)
    for cluster in clusters:
        for rank, index in enumerate(cluster[1]):
            moved[index] = _bottom(cluster, gap) + rank * gap
    return moved


def _top(cluster: tuple[float, list[int]], gap: float) -> float:
    return cluster[0] + gap * (len(cluster[1]) - 1) / 2


def _bottom(cluster: tuple[float, list[int]], gap: float) -> float:
    return cluster[0] - gap * (len(cluster[1]) - 1) / 2


def _stroke(colour: int) -> tuple[str, str | tuple[float, tuple[float, ...]]]:
    index = colour % NUM_COLOURS
    return f"#0a0c{index:02x}", DASHES[index]


def _themed(svg: str, *, title: str) -> str:
    """Matplotlib's SVG file -> an inline element without prologue, metadata and unused ids, in the page's colours."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    view_box = re.search(r'viewBox="([^"]+)"', svg)
    assert view_box is not None
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    referenced = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: m.group(0) if m.group(1) in referenced else "", body)
    body = body.replace("xlink:href", "href")
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    body = re.sub(r"#0a0[bc][0-9a-f]{2}", lambda m: f"var(--{_ROLES[m.group(0)]})", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    return f'<svg class="plot" viewBox="{view_box.group(1)}" role="img" aria-label="{label}">{body}'

"""The terminal: whatever its encoding and whoever wrote the text, printing does no harm and does not fail."""

from __future__ import annotations

from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.control import Control
from rich.measure import Measurement
from rich.segment import Segment

from harness.contract.shown import printable


def terminal(**options: Any) -> Console:
    """A console that prints text as it is: no markup in it, and characters that would act on the terminal written out.

    Args:
        options: of `rich.console.Console`.
    """
    console = Console(highlight=False, markup=False, emoji=False, **options)
    console.push_render_hook(_Printing())
    return console


class _Printing(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [one if isinstance(one, Control) else _Printable(one) for one in renderables]


class _Printable:
    """Shows what `inner` shows, without what its text would do to the terminal. Styles are rich's own and stay."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.inner)

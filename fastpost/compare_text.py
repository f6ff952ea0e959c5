"""A comparison for people. Reads the JSON of `compare`; rich is loaded here and only to draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastpost.bench_report import Setting
from fastpost.report import safe, three_digits, uncut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

_STYLES: Final = {"faster": "green", "slower": "red"}
_SCALES: Final = {"rate": (1.0, "uploads/s"), "throughput": (1e6, "MB/s")}


def drawn(comparison: Mapping[str, Any], console: Console) -> str:
    """Return the text as rich draws it on that console."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    with console.capture() as captured:
        for name in ("before", "after"):
            side = comparison[name]
            text = f"{name:<12}{side['file']} · {side['target']} · {side['began']}"
            console.print(safe(text), soft_wrap=True)
        for difference in comparison["differences"]:
            console.print(f"{'differs':<12}{safe(difference)}", style="yellow", soft_wrap=True)
        for one in comparison["comparisons"]:
            console.print(": ".join(filter(None, (heading(one), doubt(one)))), soft_wrap=True)
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
            table.add_column("")
            for name in ("before", "after", f"change ({comparison['level']:.0%} interval)"):
                table.add_column(name, justify="right")
            table.add_column("verdict")
            for figure in one["figures"]:
                verdict = Text(figure["verdict"], _STYLES.get(figure["verdict"], ""))
                table.add_row(*cells(figure), verdict)
            uncut(table, console)
    return captured.get()


def heading(one: Mapping[str, Any]) -> str:
    """Return in words what is compared."""
    runs = " and ".join(map(str, one["runs"]))
    return f"{Setting.of(one).in_words()}, {runs} runs"


def doubt(one: Mapping[str, Any]) -> str:
    """Return what so few runs can't show; "" when there are enough."""
    if one["by"] == "runs":
        return ""
    return "seen is how they vary within a run, not from run to run; --runs 5 gives a verdict to trust"


def cells(figure: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return a figure with its unit, before and after, and its change."""
    scale, unit = _SCALES.get(figure["figure"], (1.0, "ms"))
    before, after = (three_digits(figure[side] / scale) for side in ("before", "after"))
    name = f"{figure['figure']} {unit}"
    if figure["change"] is None:
        return name, before, after, "too little to tell"
    return name, before, after, f"{figure['change']:+.1%} ({figure['low']:+.1%} … {upper_end(figure)})"


def upper_end(figure: Mapping[str, Any]) -> str:
    """Return the upper end of the interval of a change, which may have none."""
    return "any" if figure["high"] is None else f"{figure['high']:+.1%}"

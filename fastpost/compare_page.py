"""A comparison as one HTML page. Reads the JSON of `compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastpost.compare import RATES
from fastpost.compare_text import cells, doubt, heading, upper_end
from fastpost.page import BESIDE, Chart, Line, Page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: What each verdict looks like; no colour alone tells it, as symbols and the table do too.
_LOOKS: Final = {"faster": 2, "slower": 1, "no difference shown": 6}
#: An interval without end is drawn to so many times the change, or to this.
_FAR: Final = 1.0


def drawn(comparison: Mapping[str, Any], limit: float | None) -> str:
    """Return the page; `limit` is that of --fail-if-slower."""
    before, after = comparison["before"], comparison["after"]
    page = Page(f"fastpost compare of {before['file']} and {after['file']}")
    page.heading(f"{before['file']} and {after['file']}", level=1)
    page.paragraph("fastpost compare", "faint")
    _verdicts(page, comparison, limit)
    page.heading("What stood on each side")
    page.table(("", "file", "target", "began", "fastpost", "runs"), _sides(comparison), "What stood on each side")
    for difference in comparison["differences"]:
        page.paragraph(f"They differ in {difference}", "bad")
    for one in comparison["comparisons"]:
        page.heading(heading(one))
        if doubt(one):
            page.paragraph(f"With so few runs, {doubt(one)}.")
        page.table(_header(comparison), _table(one["figures"]), heading(one))
        if any(figure["change"] is not None for figure in one["figures"]):
            page.charts([_chart(one, limit)])
    return page.drawn(comparison)


def _verdicts(page: Page, comparison: Mapping[str, Any], limit: float | None) -> None:
    """Add what is shown, in sentences: one for each setting."""
    for one in comparison["comparisons"]:
        shown = [figure for figure in one["figures"] if figure["verdict"] != "no difference shown"]
        words = ", ".join(f"{figure['figure']} is {figure['verdict']} ({figure['change']:+.1%})" for figure in shown)
        kind = "bad" if any(figure["verdict"] == "slower" for figure in shown) else "good" if shown else ""
        page.paragraph(f"{heading(one)}: {words or 'no difference shown'}.", kind)
    if limit is not None:
        page.paragraph(f"--fail-if-slower {limit:.1%}: what is shown to be slower by more than that fails.", "faint")


def _sides(comparison: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for place, name in enumerate(("before", "after")):
        side = comparison[name]
        runs = sorted({one["runs"][place] for one in comparison["comparisons"]})
        told = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
        yield name, side["file"], side["target"], side["began"], side["fastpost"], told


def _header(comparison: Mapping[str, Any]) -> tuple[str, ...]:
    return "figure", "before", "after", f"change ({comparison['level']:.0%} interval)", "verdict"


def _table(figures: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for figure in figures:
        yield (*cells(figure), figure["verdict"])


def _chart(one: Mapping[str, Any], limit: float | None) -> Chart:
    """Return the changes with their intervals, and how far each may go by --fail-if-slower."""
    figures = [figure for figure in one["figures"] if figure["change"] is not None]
    lines = []
    for figure in figures:
        low, high = _drawn_ends(figure)
        look = _LOOKS[figure["verdict"]]
        lines += [
            Line(figure["verdict"], [(low, figure["figure"]), (high, figure["figure"])], look),
            Line(figure["verdict"], [(figure["change"], figure["figure"])], look, dots=True),
        ]
    if limit is not None:
        ends = [(-limit if figure["figure"] in RATES else limit, figure["figure"]) for figure in figures]
        lines.append(Line(f"--fail-if-slower {limit:.1%}", ends, BESIDE, dots=True))
    told = "; ".join(f"{figure['figure']} {cells(figure)[3]}, {figure['verdict']}" for figure in figures)
    header = ("figure", "change", "lower end", "upper end", "verdict")
    rows = [
        (figure["figure"], f"{figure['change']:+.1%}", f"{figure['low']:+.1%}", upper_end(figure), figure["verdict"])
        for figure in figures
    ]
    return Chart(
        "Change from before to after",
        f"Changes with their intervals: {told}.",
        "changes",
        "change of the figure",
        lines,
        table=(header, rows),
    )


def _drawn_ends(figure: Mapping[str, Any]) -> tuple[float, float]:
    far = max(_FAR, 2 * figure["change"])
    return figure["low"], far if figure["high"] is None else figure["high"]

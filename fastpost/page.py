"""One HTML page that needs nothing else: text, charts each with its table, the data, style and script inside.

Servers, file names and URLs have words of their own in it: text goes through `text`, data through `_data`, and the
page's Content-Security-Policy lets nothing be loaded, no other script run than the two that are in it, and no other
style sheet be used.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import json
import string
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from fastpost.report import safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: What a chart's x axis is: seconds; percentiles on a logarithmic axis, as 1 ÷ (1 − q); numbers on a logarithmic
#: axis; names; relative changes, the lines then lying one below the other.
Axis = Literal["seconds", "percentiles", "numbers", "names", "changes"]
X = float | str
Y = float | str | None
#: The look of a line that is beside the matter: what was asked for, or what a mean is of.
BESIDE: Final = -1


class Line(NamedTuple):
    """One line of a chart. Lines of one name are one entry of the legend.

    Attributes:
        name: what the legend says.
        points: x and y; a y of None is a gap. Of changes y is the name of the figure.
        look: place in the row of colours, symbols and dashes, or BESIDE.
        dots: True for points that no line connects.
        column: what the table says, where that is more than the legend does.
    """

    name: str
    points: Sequence[tuple[X, Y]]
    look: int = 0
    dots: bool = False
    column: str = ""


class Chart(NamedTuple):
    """What is drawn, and the same in words.

    Attributes:
        title: what is shown, with the unit of y.
        told: the main figures, for who does not see it.
        axis: of x.
        x: what x is, with its unit.
        lines: drawn in their order.
        stacked: True when they are added up.
        log: True for a logarithmic y.
        mark: an x to be marked, and with what words.
        table: its header and rows; None: made from the lines.
    """

    title: str
    told: str
    axis: Axis
    x: str
    lines: Sequence[Line]
    stacked: bool = False
    log: bool = False
    mark: tuple[float, str] | None = None
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None


class Page:
    """Collects the parts of a page, in their order. Every text given to it is taken as text, never as markup."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []
        self._charts: list[Chart] = []

    def heading(self, words: str, level: int = 2) -> None:
        """Add a heading."""
        self._parts.append(f"<h{level}>{text(words)}</h{level}>")

    def paragraph(self, words: str, kind: str = "") -> None:
        """Add a paragraph; `kind` is a class of page.css."""
        self._parts.append(f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>")

    def terms(self, rows: Iterable[tuple[str, str]], kind: str = "") -> None:
        """Add a list of names and what each is; nameless rows go on with the one before."""
        groups: list[str] = []
        for name, words in rows:
            if name:
                groups.append(f"<dt>{text(name)}</dt>")
            groups[-1] += f"<dd>{text(words)}</dd>"
        told = "".join(f"<div>{group}</div>" for group in groups)
        self._parts.append(f'<dl class="{kind}">{told}</dl>')

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> None:
        """Add a table whose rows become cards where there is no room for columns; its first column names the row."""
        self._parts.append(_table(header, rows, "cards", caption))

    def charts(self, charts: Iterable[Chart]) -> None:
        """Add charts, beside each other where there is room."""
        self._parts.append('<div class="charts">')
        for chart in charts:
            self._parts.append(_figure(chart, len(self._charts)))
            self._charts.append(chart)
        self._parts.append("</div>")

    def begin_details(self, summary: str, *, opened: bool) -> None:
        """Begin what can be folded away, with its heading."""
        self._parts.append(
            f'<details class="part"{" open" if opened else ""}><summary><h3>{text(summary)}</h3></summary>'
        )

    def end_details(self) -> None:
        """End it."""
        self._parts.append("</details>")

    def drawn(self, report: Mapping[str, Any]) -> str:
        """Return the page, which holds the report it is made from as JSON."""
        library, script, style = _file(_LIBRARY), _file("page.js"), _file("page.css")
        return string.Template(_file("page.html")).substitute(
            title=text(self._title),
            # The library writes attributes of style, for which there are no hashes.
            policy=f"default-src 'none'; script-src {_digest(library)} {_digest(script)}; style-src {_digest(style)}; "
            "style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'",
            library=library,
            script=script,
            style=style,
            body="\n".join(self._parts),
            report=_data(report),
            charts=_data([_drawn(chart) for chart in self._charts]),
        )


_LIBRARY: Final = "echarts/echarts.common.min.js"


def text(words: str) -> str:
    """Return words as HTML: no markup, nothing that can't be seen."""
    return html.escape(safe(words))


def number(value: Y) -> str:
    """Return a figure of a table in as many digits as it is worth."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if value == round(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3f}"


def percentile(x: float) -> str:
    """Return the percentile at x = 1 ÷ (1 − q), in percent, in as many digits as tell it from its neighbours."""
    return f"{100 * (1 - 1 / x):.7g}" if x < 1e5 else f"{100 * (1 - 1 / x):.9g}"


def _figure(chart: Chart, place: int) -> str:
    header, rows = chart.table or _tabulated(chart)
    return (
        f"<figure><figcaption>{text(chart.title)}</figcaption>"
        f'<div class="chart" data-chart="{place}" role="img" aria-label="{text(chart.told)}"></div>'
        f"<details><summary>Data of this chart</summary>{_table(header, rows, 'data', chart.title)}</details></figure>"
    )


def _drawn(chart: Chart) -> dict[str, object]:
    """Return what page.js draws; what is said of it stands in the page."""
    fields = chart._asdict() | {"lines": [line._asdict() for line in chart.lines]}
    return {name: value for name, value in fields.items() if name not in ("told", "table")}


def _tabulated(chart: Chart) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the points of all lines as a table: a row for each x, a column for each line."""
    columns = [dict(line.points) for line in chart.lines]
    found: dict[X, None] = dict.fromkeys(x for column in columns for x in column)
    places = list(found) if chart.axis == "names" else sorted(found, key=float)
    written = percentile if chart.axis == "percentiles" else number
    rows = [[x if isinstance(x, str) else written(x), *(number(column.get(x)) for column in columns)] for x in places]
    return [chart.x, *(line.column or line.name for line in chart.lines)], rows


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str, caption: str) -> str:
    heads = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>'
        + "".join(
            f'<td data-name="{text(name)}">{text(cell)}</td>' for name, cell in zip(header[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    # A region that scrolls must be reached by the keyboard.
    return (
        f'<div class="{kind}" role="region" aria-label="{text(caption)}" tabindex="0">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _data(value: object) -> str:
    """Return JSON that can't end the element it stands in, nor begin a comment. Raises ValueError for an infinity."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")


def _digest(source: str) -> str:
    """Return what a Content-Security-Policy calls it by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _file(name: str) -> str:
    return importlib.resources.files("fastpost").joinpath("pages", *name.split("/")).read_text("utf-8")

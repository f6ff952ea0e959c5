"""Pages with charts: what is in them, and what can't get into them."""

from __future__ import annotations

import hashlib
import html.parser
import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import pytest
import reports

from fastpost.page import BESIDE, Chart, Line, Page, percentile

HOSTILE = "</script><img src=http://evil.example/x onerror=alert(1)>\x1b[2J<!--"
ECHARTS = importlib.resources.files("fastpost").joinpath("pages", "echarts")


class Seen(html.parser.HTMLParser):
    """What a browser would make of a page: elements with their attributes, and what scripts hold."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.words = ""
        self._inside: str | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = dict(attrs).get("id") or f"{tag} {len(self.scripts)}"
            self.scripts[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is None:
            self.words += data
        else:
            self.scripts[self._inside] += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]

    def data(self, name: str) -> Any:
        return json.loads(self.scripts[name])


def page(words: str = "words", report: dict[str, Any] | None = None) -> Seen:
    made = Page(words)
    made.heading(words)
    made.paragraph(words)
    made.terms([(words, words), ("", words)])
    made.table(("name", words), [(words, words)], words)
    made.begin_details(words, opened=True)
    made.charts([Chart(words, words, "numbers", words, [Line(words, [(1.0, 2.0), (3.0, None)])], mark=(1.0, words))])
    made.end_details()
    return Seen(made.drawn(report or {"words": words}))


def test_words_from_outside_are_words() -> None:
    hostile, harmless = page(HOSTILE), page()
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
    assert "onerror" not in {name for _, attributes in hostile.elements for name in attributes}
    assert hostile.words.count("<img src=http://evil.example/x onerror=alert(1)>") > 5
    assert "\x1b" not in hostile.words


def test_the_report_is_in_the_page_as_it_is() -> None:
    report = {"target": HOSTILE, "measurements": [1.5, None, True, {"é": "\udcff"}]}
    assert page(report=report).data("report") == report


def test_an_infinity_is_refused_rather_than_written_as_what_no_browser_reads() -> None:
    with pytest.raises(ValueError, match="JSON"):
        page(report={"high": float("inf")})


def test_nothing_is_loaded_and_only_the_two_scripts_and_the_style_sheet_are_allowed() -> None:
    seen = page()
    assert {tag for tag, _ in seen.elements} & {"link", "img", "iframe", "object", "base", "form"} == set()
    assert seen.attributes("src") + seen.attributes("href") == []
    styles = [text for name, text in seen.scripts.items() if name.startswith("style")]
    assert not re.search(r"url\(|@import", "".join(styles))
    (policy,) = seen.attributes("content")[:1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    allowed = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    assert [allowed[name].count("'sha256-") for name in ("script-src", "style-src")] == [2, 1]
    assert [name for name, sources in allowed.items() if "unsafe" in sources] == ["style-src-attr"]


def test_a_chart_has_words_and_a_table() -> None:
    made = Page("p")
    lines = [Line("one", [(10.0, 1.0), (1.0, 2.0)]), Line("two", [(1.0, 3.5)], BESIDE, column="two, run 1")]
    made.charts([Chart("title", "told in words", "percentiles", "percentile", lines)])
    text = made.drawn({})
    seen = Seen(text)
    (chart,) = [attributes for _, attributes in seen.elements if attributes.get("role") == "img"]
    assert chart["aria-label"] == "told in words"
    cells = re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", text)
    assert cells == ["percentile", "one", "two, run 1", "0", "2", "3.50", "90", "1", "–"]
    (drawn,) = seen.data("charts")
    assert [line["points"] for line in drawn["lines"]] == [[[10, 1], [1, 2]], [[1, 3.5]]]


def test_percentiles_have_the_digits_that_tell_them_apart() -> None:
    told = [percentile(x) for x in (1, 2, 4, 10, 100, 1000, 10_000, 1_000_000)]
    assert told == ["0", "50", "75", "90", "99", "99.9", "99.99", "99.9999"]


def test_the_chart_library_is_what_npm_has() -> None:
    first, *lines = ECHARTS.joinpath("SHA256SUMS").read_text("ascii").splitlines()
    sums = {name: digest for digest, name in map(str.split, lines)}
    files = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in ECHARTS.iterdir()}
    del files["SHA256SUMS"]
    assert sums == files
    (version,) = re.findall(r" echarts (\d+\.\d+\.\d+),", first)
    assert f'.version="{version}"' in ECHARTS.joinpath("echarts.common.min.js").read_text("utf-8")


@pytest.mark.parametrize("name", ["page.js", "echarts/echarts.common.min.js"])
def test_a_script_can_not_end_early(name: str) -> None:
    text = importlib.resources.files("fastpost").joinpath("pages", *name.split("/")).read_text("utf-8")
    assert not re.search(r"</script|<!--", text, re.IGNORECASE)
    assert not re.search(r"\beval\(|\bnew Function\b", text)


def test_the_reports_of_the_tests_are_such_as_bench_writes() -> None:
    import jsonschema

    schema = json.loads(Path(str(importlib.resources.files("fastpost") / "schemas" / "bench-1.json")).read_text())
    jsonschema.Draft202012Validator(schema).validate(reports.report(reports.measured()))

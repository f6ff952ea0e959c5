"""Pages as a browser shows them: Chromium, without a window."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reports
from test_page import HOSTILE

from bench import chromium
from fastpost import bench_page, bench_report, compare, compare_page

from . import command, servers

pytestmark = pytest.mark.unsanitized  # Chromium is not built for a sanitizer


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    if chromium.program() is None:
        servers.missing("chromium is not installed")
    with chromium.running(tmp_path_factory.mktemp("profile")) as page:
        yield page


def sweep() -> dict[str, Any]:
    """Return a report with all that a page can have: two dimensions, runs, failures, words from outside."""
    taken = [
        reports.measured(concurrency, run, connections=connections, rate=100 * connections + 3 * concurrency)
        for run in (1, 2)
        for connections in (1, 4)
        for concurrency in (1, 10, 50)
    ]
    taken[0]["examples"] = {"HttpStatus 404": HOSTILE}
    taken[0]["peer"]["server"] = HOSTILE
    taken[0]["timeline"][0]["failed"] = 3
    thresholds = [{"condition": "p99>5ms", "missed": True, "told": HOSTILE}]
    target = f"http://store.example/{HOSTILE}/{'long' * 40}"
    return reports.report(*taken, knee=bench_report.knee(taken), thresholds=thresholds, target=target)


def compared() -> dict[str, Any]:
    before, after = (
        reports.report(*(reports.measured(run=run, rate=rate + run) for run in range(1, 4))) for rate in (1000, 800)
    )
    return compare.compared(before, after, (HOSTILE, "b.json"))


PAGES = {
    "sweep": lambda: bench_page.drawn(sweep()),
    "single": lambda: bench_page.drawn(reports.report(reports.measured())),
    "second": lambda: bench_page.drawn(reports.report(reports.measured(seconds=(1.0,)))),
    "one upload": lambda: bench_page.drawn(reports.report(reports.measured(rate=1, seconds=(1.0,)))),
    "all failed": lambda: bench_page.drawn(reports.report(reports.measured(rate=0, seconds=(1.0,)))),
    "compare": lambda: compare_page.drawn(compared(), 0.05),
}


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_text(PAGES[request.param](), "utf-8")
    return path


def complaints(browser: chromium.Page) -> list[object]:
    """Return what the browser wrote to its console: errors of scripts, and what the policy of the page refused."""
    names = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    return [parameters for name, parameters in browser.events if name in names]


def requests(browser: chromium.Page) -> list[str]:
    return [parameters["request"]["url"] for name, parameters in browser.events if name == "Network.requestWillBeSent"]


#: Of each chart that is not folded away: its words, how many curves and letters it has, its size.
DRAWN = """[...document.querySelectorAll(".chart")].filter(c => !c.closest("details:not([open])")).map(c => ({
    words: c.getAttribute("aria-label"), role: c.getAttribute("role"), curves: c.querySelectorAll("path").length,
    letters: c.querySelector("svg")?.textContent ?? "", rows: c.parentElement.querySelectorAll("tbody tr").length,
    within: c.querySelector("svg")?.getBoundingClientRect().right <= innerWidth}))"""


def test_every_chart_is_drawn_with_words_and_nothing_is_loaded_or_complained_of(
    browser: chromium.Page, page: Path
) -> None:
    browser.open(page)
    charts = browser.value(DRAWN)
    assert len(charts) == browser.value(
        "[...document.querySelectorAll('figure')].filter(f => !f.closest('details:not([open])')).length"
    )
    for chart in charts:
        assert chart["role"] == "img"
        assert re.search(r"\d", chart["words"])
        assert chart["curves"] > 5
        assert chart["letters"]
        assert "NaN" not in chart["letters"] + chart["words"]
        assert chart["rows"] >= 1
    assert complaints(browser) == []
    assert requests(browser) == [page.as_uri()]


@pytest.mark.parametrize("page", ["sweep", "compare"], indirect=True)
def test_words_from_outside_make_no_element(browser: chromium.Page, page: Path) -> None:
    """These two hold them."""
    browser.open(page)
    assert browser.value("document.querySelectorAll('img, [onerror]').length") == 0


def test_pointing_at_a_chart_tells_its_figures(browser: chromium.Page, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES["single"](), "utf-8")
    browser.open(path)
    corner = browser.value("(r => ({ x: r.x, y: r.y }))(document.querySelector('.chart').getBoundingClientRect())")
    at = {"x": corner["x"] + 200, "y": corner["y"] + 150}
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
    assert "1,000" in browser.value("document.querySelector('.chart').innerText")
    assert complaints(browser) == []


def test_what_is_folded_away_is_drawn_when_it_is_opened(browser: chromium.Page, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES["sweep"](), "utf-8")
    browser.open(path)
    before = browser.value("document.querySelectorAll('.chart svg').length")
    assert before == 2 + 2 + 5
    browser.value(
        "new Promise(done => { const part = document.querySelector('details.part:not([open])');"
        " part.addEventListener('toggle', done); part.open = true; }).then(() => 0)"
    )
    assert browser.value("document.querySelectorAll('.chart svg').length") == before + 5
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [320, 360, 400, 800, 1600])
def test_a_window_of_any_width_needs_no_scrolling_sideways(browser: chromium.Page, page: Path, width: int) -> None:
    browser.open(page, width=width)
    browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert all(chart["within"] for chart in browser.value(DRAWN))


def test_a_window_that_becomes_narrow_is_followed(browser: chromium.Page, page: Path) -> None:
    browser.open(page, width=1200)
    browser.resize(340)
    # The next frame has seen the window's new size.
    browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")
    assert browser.value("document.documentElement.scrollWidth") <= 340
    assert all(chart["within"] for chart in browser.value(DRAWN))


def test_the_dark_is_dark_and_the_charts_can_be_read_in_it(browser: chromium.Page, page: Path) -> None:
    colours = {}
    for dark in (False, True):
        browser.open(page, dark=dark)
        paper = browser.value("getComputedStyle(document.documentElement).backgroundColor")
        letters = browser.value("getComputedStyle(document.querySelector('.chart text')).fill")
        colours[dark] = (luminance(paper), luminance(letters))
    assert colours[True][0] < 0.1 < 0.3 < colours[True][1]
    assert colours[False][0] > 0.9 > 0.4 > colours[False][1]


def luminance(colour: str) -> float:
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / (3 * 255)


def test_print_is_light_and_has_the_charts(browser: chromium.Page, page: Path) -> None:
    browser.open(page, width=360, dark=True)
    # While it is printed nobody can look: the page itself tells how it was.
    browser.value(
        "addEventListener('beforeprint', () => { window.printed = {"
        " widths: [...document.querySelectorAll('.chart svg')].map(svg => svg.getAttribute('width')),"
        " curves: [...document.querySelectorAll('.chart svg')].map(svg => svg.querySelectorAll('path').length) }; }), 0"
    )
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 2
    printed = browser.value("window.printed")
    assert set(printed["widths"]) == {"642"}
    assert min(printed["curves"]) > 5
    assert browser.value("document.querySelector('.chart svg').getAttribute('width') < 360")
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert luminance(browser.value("getComputedStyle(document.documentElement).backgroundColor")) == 1.0
    assert luminance(browser.value("getComputedStyle(document.querySelector('.chart text')).fill")) < 0.4


# --- what the command writes ------------------------------------------------------------------------------------------


def test_bench_writes_a_page_of_what_it_measured(browser: chromium.Page, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    run = command.run(
        "bench", "-q", "--count", "300", "-c", "1,10", "--fail-if", "rate<1", "--html", path, "--output-format", "json"
    )
    browser.open(path)
    assert json.loads(browser.value("document.getElementById('report').textContent")) == run.report
    assert len(browser.value(DRAWN)) == 2 + 2 + 5
    assert complaints(browser) == []


def test_an_interrupted_run_has_its_page(browser: chromium.Page, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    arguments = ("bench", "--duration", "100s", "--warm-up", "0", "--html", str(path), "--log", "/dev/stderr")
    with subprocess.Popen(
        [sys.executable, "-m", "fastpost", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        while not running.stderr.readline().startswith("{"):
            pass
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert running.returncode == 130
    browser.open(path)
    assert "Interrupted" in browser.value("document.body.innerText")
    assert len(browser.value(DRAWN)) == 5
    assert complaints(browser) == []


def test_a_page_that_can_not_be_made_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "page.html"
    run = command.run("bench", "-q", "--duration", "60s", "--html", path)
    assert run.code in (1, 2)
    assert run.told(str(path))

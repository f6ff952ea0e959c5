"""What a probe has found, for people. Reads its JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastpost.report import Row, octets_text, safe, three_digits

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Above this a ceiling is no news: no line is that fast.
_ENDLESS: Final = 1e11


def rows(found: Mapping[str, Any]) -> list[Row]:
    """Return the lines of the report."""
    settings, windows, upload = found["settings"], found["windows"], found["upload"]
    lines = [
        ("target", f"{found['method']} {found['target']} ({found['address']})"),
        ("server", _server(found["server"])),
        ("times", _times(found["times_ms"])),
        ("tls", " · ".join(str(value) for value in found["tls"].values()) if found["tls"] else ""),
        ("settings", " · ".join(f"{name} {value:,}" for name, value in settings.items()) or "all are defaults"),
        ("streams", _streams(found["max_concurrent_streams"])),
        ("stream", _window(windows["stream_initial"], windows["stream_largest"])),
        ("connection", _window(windows["connection_initial"], windows["connection_largest"])),
        ("updates", _updates("stream", found["window_updates"]["stream"])),
        ("", _updates("connection", found["window_updates"]["connection"])),
        ("ping", _ping(found["ping_ms"])),
        ("upload", _upload(upload)),
        ("goaway", _goaway(found)),
        *_ceiling(found["ceiling"]),
        *_unfilled(found),
        *_knobs(found["server"]),
    ]  # fmt: skip
    return [Row(label, safe(text)) for label, text in lines if text]


def _server(server: Mapping[str, Any]) -> str:
    if server["recognised_by"] == "settings":
        told = f"passes on the name {server['field']}" if server["field"] else "gives no name"
        return f"{told}; its settings are those of {server['name']}"
    return server["field"] or "gives no name"


def _times(times: Mapping[str, float | None]) -> str:
    return " · ".join(f"{name} {took:,.2f}" for name, took in times.items() if took is not None) + " ms"


def _streams(most: int | None) -> str:
    return "any number at once" if most is None else f"{most:,} at once on a connection"


def _window(initial: int, largest: int) -> str:
    grown = f", grown to {largest:,}" if largest > initial else ""
    return f"window of {initial:,} octets{grown}"


def _updates(name: str, updates: Mapping[str, Any]) -> str:
    if not updates["count"]:
        return f"{name}: none came"
    each = updates["sent_for_each"]
    when = f"one for each {each:,} sent" if each else "before anything was sent"
    return f"{name}: {updates['count']:,} of mostly {updates['median_octets']:,} octets, {when}"


def _ping(ping: Mapping[str, Any]) -> str:
    if not ping["count"]:
        return "not answered"
    return f"median {ping['median']:,.2f} · smallest {ping['smallest']:,.2f} ms of {ping['count']}"


def _upload(upload: Mapping[str, Any]) -> str:
    took = upload["seconds"]
    rate = f" · {three_digits(upload['octets'] / took / 1e6)} MB/s" if took and upload["octets"] else ""
    status = f" · status {upload['status']}" if upload["status"] else ""
    return f"{octets_text(upload['octets'])} in {took:,.2f} s{rate}{status} · {upload['ended']}"


def _goaway(found: Mapping[str, Any]) -> str:
    seen, requests, habit = found["goaway"], found["requests"], found["server"]["goaway"]
    if seen is None:
        told = f"none came in {found['answered']:,} answered request{'' if found['answered'] == 1 else 's'}"
    else:
        after = f"{seen['after_requests']:,} of {requests:,} requests, " if seen["after_requests"] is not None else ""
        told = f"{seen['code']} after {after}{seen['after_s']:.2f} s"
    return f"{told}; this server says it {habit}" if habit else told


def _ceiling(ceiling: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if ceiling is None:
        return []
    if ceiling["one_upload"] > _ENDLESS:
        return [("ceiling", "the windows set none here: window ÷ round trip is more than any line carries")]
    rates = " · ".join(f"{one['connections']}: {_rate(one['octets_per_s'])}" for one in ceiling["connections"])
    return [
        ("ceiling", f"window ÷ round trip: one upload {_rate(ceiling['one_upload'])} MB/s"),
        ("", f"in all, by connections: {rates} MB/s"),
    ]


def _unfilled(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a ceiling that is told of windows that were never filled does not say."""
    ceiling, upload, windows = found["ceiling"], found["upload"], found["windows"]
    if ceiling is None or not ceiling["unfilled"] or ceiling["one_upload"] > _ENDLESS:
        return []
    filled = min(windows["stream_initial"], windows["connection_initial"])
    cure = f": give --budget more than {filled:,}" if upload["ended"] == "complete" else ""
    return [
        ("", f"of the windows at the beginning: {upload['octets']:,} octets did not fill them, so that it was not "
         f"seen how the server opens them, nor whether they grow{cure}")
    ]  # fmt: skip


def _knobs(server: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what to turn; that there is nothing, only of a server that is known."""
    if server["name"] is not None and not server["knobs"]:
        return [("knob", f"none is known: {server['name']} has no option for streams or windows")]
    return [
        ("" if place else "knob", f"{cause.replace('_', ' ')}: {knob}")
        for place, (cause, knob) in enumerate(server["knobs"].items())
    ]


def _rate(octets: float) -> str:
    return "any" if octets > _ENDLESS else three_digits(octets / 1e6)

"""config: settings that can't be meant are refused before anything is done."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from fastpost.config import Settings
from fastpost.errors import UsageError


def settings(**options: Any) -> Settings:
    return Settings(to="https://store.example/", **options)


def test_defaults_are_those_of_the_manual() -> None:
    chosen = settings()
    assert (chosen.concurrency, chosen.connections, chosen.schedule) == (50, "auto", "fair")
    assert (chosen.retries, chosen.retry_delay, chosen.retry_max_time) == (3, 0.5, None)
    assert (chosen.stall_timeout, chosen.body_limit) == (60.0, 1024)
    assert (chosen.insecure, chosen.retry_post, chosen.keep_responses) == (False, False, False)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings().concurrency = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 1},
        {"concurrency": 100_000},
        {"connections": 1000},
        {"schedule": "fifo"},
        {"retries": 0, "retry_delay": 0},
        {"method": "PUT"},
        {"method": "M-SEARCH"},
        {"cert": pathlib.Path("c")},
        {"cert": pathlib.Path("c"), "key": pathlib.Path("k")},
        {"fields": (("X-One", "1"), ("x-one", "2"), ("X-Empty", ""))},
    ],
)
def test_accepted(options: dict[str, Any]) -> None:
    for name, value in options.items():
        assert getattr(settings(**options), name) == value


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 100_001}, "concurrency"),
        ({"connections": 0}, "connections"),
        ({"connections": 1001}, "connections"),
        ({"schedule": "random"}, "fair or fifo"),
        ({"connect_timeout": 0}, "connect-timeout"),
        ({"connect_timeout": float("nan")}, "connect-timeout"),
        ({"stall_timeout": -1}, "stall-timeout"),
        ({"retries": -1}, "retries"),
        ({"retry_delay": -0.1}, "retry-delay"),
        ({"retry_delay": float("nan")}, "retry-delay"),
        ({"key": pathlib.Path("k")}, "cert"),
        ({"method": ""}, "method"),
        ({"method": "PUT /"}, "method"),
        ({"method": "PUT\r\nX: 1"}, "method"),
    ],
)
def test_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(**options)
    assert says in str(caught.value)


class TestFields:
    @pytest.mark.parametrize("name", ["", " x", "x ", "x:y", ":path", "x\ny", "grün", "a b"])
    def test_names(self, name: str) -> None:
        with pytest.raises(UsageError, match="header name"):
            settings(fields=((name, "1"),))

    @pytest.mark.parametrize(
        "name",
        [
            "Connection",
            "keep-alive",
            "Transfer-Encoding",
            "upgrade",
            "HOST",
            "Content-Length",
            "TE",
            "proxy-connection",
        ],
    )
    def test_connection_fields(self, name: str) -> None:
        with pytest.raises(UsageError, match="leave it out"):
            settings(fields=((name, "1"),))

    @pytest.mark.parametrize("value", ["a\nx: y", "a\r", "\0"])
    def test_values_can_not_start_another_field_and_are_not_repeated(self, value: str) -> None:
        with pytest.raises(UsageError) as caught:
            settings(fields=(("authorization", value),))
        assert "'authorization'" in str(caught.value)
        assert value not in str(caught.value)

    def test_a_bad_one_after_good_ones(self) -> None:
        with pytest.raises(UsageError):
            settings(fields=(("x-good", "1"), ("host", "h")))


@pytest.mark.parametrize(
    ("options", "repeats"),
    [
        ({}, False),
        ({"retry_post": True}, True),
        ({"fields": (("Idempotency-Key", "1"),)}, True),
        ({"fields": (("X-Idempotency-Key", "1"),)}, False),
    ],
)
def test_when_a_post_may_be_sent_twice(options: dict[str, Any], repeats: bool) -> None:
    assert settings(**options).repeats_post is repeats


def test_the_repr_shows_no_fields() -> None:
    """They may hold a password, and a repr ends up in tracebacks and logs."""
    settings = Settings(to="https://store.example/", fields=(("Authorization", "Bearer s3cret"),))
    assert "s3cret" not in repr(settings)

"""endpoint: where connections go instead of the target's own host and port."""

from __future__ import annotations

import pytest

from fastpost import endpoint
from fastpost.config import Detour, Settings
from fastpost.errors import UsageError
from fastpost.target import parse

URL = "https://store.example/dav/"


def there(*detours: Detour, url: str = URL) -> tuple[str, int]:
    found = endpoint.of(parse(url), Settings(to=url, connect_to=detours))
    assert found.path is None
    return found.host, found.port


@pytest.mark.parametrize(
    ("detours", "expected"),
    [
        ([], ("store.example", 443)),
        ([("store.example", 443, "127.0.0.1", 8443)], ("127.0.0.1", 8443)),
        ([(None, None, "127.0.0.1", None)], ("127.0.0.1", 443)),
        ([("store.example", None, None, 8443)], ("store.example", 8443)),
        ([(None, 443, "::1", 1)], ("::1", 1)),
        ([("other.example", 443, "127.0.0.1", 1)], ("store.example", 443)),
        ([(None, 80, "127.0.0.1", 1)], ("store.example", 443)),
        ([("other.example", None, "a", 1), (None, None, "b", 2), (None, None, "c", 3)], ("b", 2)),
    ],
)
def test_the_first_detour_that_fits(detours: list[Detour], expected: tuple[str, int]) -> None:
    assert there(*detours) == expected


def test_the_place_has_a_name_for_messages() -> None:
    settings = Settings(to=URL, connect_to=((None, None, "::1", 7),))
    assert endpoint.of(parse(URL), settings).address == "[::1]:7 (--connect-to)"
    assert endpoint.of(parse(URL), Settings(to=URL, unix_socket="/run/x")).address == "the Unix socket /run/x"
    assert endpoint.of(parse(URL), Settings(to=URL)).address == "store.example:443"


def test_one_way_there_is_enough() -> None:
    with pytest.raises(UsageError, match="leave one out"):
        Settings(to=URL, unix_socket="/run/x", connect_to=((None, None, "a", 1),))
    with pytest.raises(UsageError, match="unix-socket is empty"):
        Settings(to=URL, unix_socket="")

"""Any URL template with any name of a file: refused with a reason, or a request that can't be read in two ways.

    python tests/fuzz/fuzz_target.py --seconds 60

An input is a template, a NUL, and a name. No octet of the name may end the path, start another field or leave its
folder.
"""

from __future__ import annotations

import random
import re
import sys
import urllib.parse
from collections.abc import Hashable

from harness import main

from fastpost import target
from fastpost.errors import UsageError

#: RFC 3986 §3.3, §3.4: what :path may have (RFC 9113 §8.3.1); "%" only before two hex digits.
PATH = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
AUTHORITY = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:\[\]%]+")
#: RFC 9110 §5.5, without the octets that only quoted strings need.
VALUE = re.compile(rb"[\x21-\x7e][\x20-\x7e]*")

TEMPLATES = (
    "http://h/{path}", "https://store.example/dav/", "http://h/a/{name}", "http://h/{stem}-{ext}?n={path}&token=s3cret",
    "http://[::1]:8080/{path}", "http://user:s3cret@h/", "http://münchen.example/", "//h/x", "http://h", "h:80/{path}",
    "http://h:65536/", "http://h/%zz", "http://h/#x", "http://h/{nope}", "http://h/{", "ftp://h/", "http://h/a b",
)  # fmt: skip
NAMES = (
    b"a", b"a/b/c.tar.gz", b"..", b"a/../b", b".", b"/etc/passwd", b"a//b", b"", b"\xff\xfe", b"a\r\nX-Other: 1",
    b"%2e%2e", b"?q#f", b".hidden", b"a;b+c", b"\\..\\b", b"a\0b", "\u202e.txt".encode(), b"x" * 300, b"a/", b"...",
)  # fmt: skip


def check(octets: bytes) -> Hashable:
    """Try one template with one name; returns what came of it."""
    text, _, name = octets.partition(b"\0")
    try:
        to = target.parse(text.decode("utf-8", "surrogateescape"))
    except UsageError as error:
        if ":s3cret@" in str(error):
            raise AssertionError(str(error)) from error
        return reason(error)
    assert AUTHORITY.fullmatch(to.authority), to.authority
    try:
        path = to.request_path(name)
        fields = to.fields(name)
        shown = to.url(name)
    except UsageError as error:
        return reason(error)
    assert PATH.fullmatch(path), path
    assert not {b".", b".."} & set(path.partition(b"?")[0].split(b"/")) or b"/." in text, "it leads somewhere else"
    assert all(VALUE.fullmatch(value) for _, value in fields), fields
    assert shown.isascii(), shown
    assert shown.isprintable(), shown
    if text == b"http://h/{path}":
        assert urllib.parse.unquote_to_bytes(path[1:]) == name
    return to.unique, to.shared, len(fields), b"%" in path, b"?" in path


def reason(error: UsageError) -> Hashable:
    """Return where it was refused, which tells reasons apart whatever the message repeats."""
    found = error.__traceback__
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    return found and found.tb_lineno


def make(rng: random.Random) -> bytes:
    """Draw a template and a name, at times with odd octets in them."""
    template, name = rng.choice(TEMPLATES).encode(), rng.choice(NAMES)
    if rng.random() < 0.5:
        name = b"/".join(rng.choice(NAMES) + rng.randbytes(rng.randrange(3)) for _ in range(rng.randrange(1, 4)))
    if rng.random() < 0.3:
        at = rng.randrange(len(template) + 1)
        template = template[:at] + rng.choice((b"{path}", b"%2F", b"{", b"@", b"?", b"..", b"\xc3\xa9")) + template[at:]
    return template + b"\0" + name


if __name__ == "__main__":
    sys.exit(main("target", make, check))

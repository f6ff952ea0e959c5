"""Files as a browser's form sends them: one part of multipart/form-data (RFC 7578) a request."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from fastpost._envelope import Envelope
from fastpost.errors import UsageError

if TYPE_CHECKING:
    from fastpost.media_types import Fields

#: As browsers write what would end a quoted name (HTML, "multipart/form-data encoding algorithm").
_QUOTED = {0x22: b"%22", 0x0D: b"%0D", 0x0A: b"%0A"}
_OCTETS = b"application/octet-stream"


class Form:
    """What every request of a run is wrapped in.

    Args:
        field: the name of the form's field. Raises UsageError when it is empty or holds a NUL.

    Attributes:
        fields: the request fields that say what the content is.
        field: the name, as it is sent.
    """

    def __init__(self, field: str) -> None:
        if not field or "\0" in field:
            raise UsageError("--form is the name of the form's field, as in --form file")
        # 128 random bits: no file has it by chance, and nobody can write one that does.
        boundary = b"fastpost-" + secrets.token_hex(16).encode()
        self.field = _quoted(field.encode("utf-8", "surrogateescape"))
        self.fields: Fields = ((b"content-type", b"multipart/form-data; boundary=" + boundary),)
        self._start = b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="' % (boundary, self.field)
        self._end = b"\r\n--%b--\r\n" % boundary

    def envelope(self, name: bytes, fields: Fields) -> Envelope:
        """Return what stands around a file of this name, with the type that `fields` give it.

        What a name says to be compressed is sent as octets: a part has no content-encoding.
        """
        known = dict(fields)
        kind = _OCTETS if b"content-encoding" in known else known.get(b"content-type", _OCTETS)
        base = _quoted(name.rpartition(b"/")[2])
        return Envelope(b'%b%b"\r\nContent-Type: %b\r\n\r\n' % (self._start, base, kind), self._end)


def _quoted(text: bytes) -> bytes:
    return b"".join(_QUOTED.get(octet, bytes((octet,))) for octet in text) if _needs_quoting(text) else text


def _needs_quoting(text: bytes) -> bool:
    return b'"' in text or b"\r" in text or b"\n" in text

"""Where an upload goes: a URL template in; authority, request path and request fields out (RFC 3986, RFC 9113 §8.3.1).

Which octets of a name are escaped, and what {stem} and {ext} are, is argued in docs/decisions/0002-names-in-urls.md.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing

from fastpost._labels import Labels
from fastpost.errors import UsageError
from fastpost.media_types import TOKEN, UNKNOWN, Fields, TypesBySuffix, coded, declared

if typing.TYPE_CHECKING:
    from fastpost.config import Settings
    from fastpost.forms import Form

_SLASH = 0x2F
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


class _Escapes(dict[int, bytes]):
    """What each octet is sent as: itself when it is one of `plain`, which has the slash, else %XX. Made as needed.

    Attributes:
        as_is: maps `plain` to itself and the rest to the slash, so that translating changes what needs an escape.
    """

    __slots__ = ("as_is",)

    def __init__(self, plain: bytes) -> None:
        super().__init__()
        as_is = bytearray(b"/" * 256)
        for octet in plain:
            as_is[octet] = octet
        self.as_is = bytes(as_is)

    def __missing__(self, octet: int) -> bytes:
        plain = octet == _SLASH or self.as_is[octet] != _SLASH
        self[octet] = bytes((octet,)) if plain else b"%%%02X" % octet
        return self[octet]

    def applied(self, octets: bytes) -> bytes:
        """Return octets with escapes: 30 ns for each of them, 60 ns for all when none is needed."""
        if octets.translate(self.as_is) == octets:
            return octets
        return b"".join(map(self.__getitem__, octets))


#: A name in the path. "+" and ";" are legal there but read as a space and as a parameter by some servers.
_NAME_IN_PATH = _Escapes(_UNRESERVED + b"!$&'()*,=:@/")
#: A name in the query: "&", "=" and "+" would start another parameter or mean a space.
_NAME_IN_QUERY = _Escapes(_UNRESERVED + b"/")
#: The template itself: all that RFC 3986 allows, and the escapes that are there already.
_TEMPLATE_PATH = _Escapes(_UNRESERVED + b"!$&'()*+,;=:@/%")
_TEMPLATE_QUERY = _Escapes(_UNRESERVED + b"!$&'()*+,;=:@/%?")


class Redirect(typing.NamedTuple):
    """Where a Location leads: the origin, such as https://store.example:8443, and the :path there."""

    origin: str
    path: bytes


class _Piece(typing.NamedTuple):
    """A literal, followed by a placeholder's value; the last one of a template has no placeholder."""

    literal: bytes
    placeholder: str | None
    escapes: _Escapes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Target:
    """Where uploads go and how they are labelled. Made by `parse`.

    Attributes:
        scheme: "http": cleartext HTTP/2 by prior knowledge; "https": TLS.
        host: to connect to; IDNA-encoded, an IPv6 address without brackets.
        port: to connect to.
        authority: for the :authority field; the scheme's default port left out.
        method: for the :method field.
        template: the URL as given, for messages; values of query parameters that look secret are masked.
        unique: different names give different URLs by construction. Two SOURCEs may still hold the same name.
        shared: the URL says nothing of which file it is, on purpose: no check for two files with one URL.
    """

    scheme: typing.Literal["http", "https"]
    host: str
    port: int
    authority: bytes
    method: bytes
    template: str
    unique: bool
    shared: bool
    _pieces: tuple[_Piece, ...] = dataclasses.field(repr=False)
    _shown: tuple[_Piece, ...] = dataclasses.field(repr=False)
    #: What names become, by the thousand; `request_path` and `fields` have it one by one.
    labels: Labels = dataclasses.field(repr=False)

    def request_path(self, name: bytes) -> bytes:
        """Return the :path for a relative name.

        Costs 30 ns for each octet of a base name that needs escapes; a folder is escaped once.

        Raises:
            UsageError: the name is empty or has an empty, "." or ".." part. A walk finds no such name.
        """
        return self.labels.request_path(name)

    def fields(self, upload_name: bytes, content_type: str | None = None) -> Fields:
        """Return content-type and, where the name tells one, content-encoding (RFC 9110 §8.3, §8.4).

        The same suffix gives the same tuple object, so that what is made from it can be kept as well.

        Args:
            upload_name: Upload.name.
            content_type: Upload.content_type; it and the target's own (--content-type) stop all guessing.

        Raises:
            UsageError: content_type is not a media type.
        """
        return self.labels.content_fields(upload_name, content_type)

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of method, origin and template, secrets and all: equal where the same names go to the same places."""
        import hashlib  # only for those who keep a journal

        places = b"".join(b"%b{%b}" % (piece.literal, (piece.placeholder or "").encode()) for piece in self._pieces)
        if self.labels.form is not None:
            places += b" form " + self.labels.form.field
        return hashlib.sha256(b"%b %b%b" % (self.method, self.origin.encode(), places)).digest()

    @property
    def address(self) -> str:
        """Host and port, as messages name them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority, such as https://store.example:8443 (RFC 6454 §6.2)."""
        return f"{self.scheme}://{self.authority.decode()}"

    def redirected(self, path: bytes, location: str) -> Redirect | None:
        """Return where a Location leads (RFC 9110 §10.2.2).

        None: it is no http(s) URL, holds a user name, or leads from https to http, where the octets would be open.

        Args:
            path: the :path of the request.
            location: the field as the server sent it.
        """
        from urllib.parse import urljoin, urlsplit  # only for those who are redirected

        try:
            url = urlsplit(urljoin(f"{self.origin}{path.decode()}", location))
            if url.scheme not in ("https", self.scheme) or url.username is not None:
                return None
            # Its fragment is the client's, and is left out; a brace would be a placeholder.
            there = parse(f"{url.scheme}://{url.netloc}/").origin
        except (ValueError, UsageError):
            return None
        sent = (url.path or "/") + (f"?{url.query}" if url.query else "")
        return Redirect(there, sent.encode()) if re.fullmatch(r"/[\x21-\x7e]*", sent) else None

    def url(self, name: bytes) -> str:
        """Return the whole URL for a relative name, for messages; secrets in the query are masked."""
        return f"{self.scheme}://{self.authority.decode()}{_fill(self._shown, name).decode()}"


def of(settings: Settings) -> Target:
    """Return the target of a run. Raises UsageError as `parse` does."""
    return parse(settings.to, method=settings.method, content_type=settings.content_type, form=settings.form)


def parse(to: str, *, method: str | None = None, content_type: str | None = None, form: str | None = None) -> Target:
    """Read the URL or URL template of `--to`.

    {path} stands for the relative name, {name} for its last part, {ext} for what follows the last dot in that, {stem}
    for what comes before it. Without any of them a path that ends in "/" gets the relative name appended; any other
    URL receives every file. A URL without a path means "/" (RFC 3986 §6.2.3). Non-ASCII text is sent as escaped UTF-8.

    Args:
        to: the URL.
        method: None: PUT when the URL names the file, else POST.
        content_type: sent with every file, in place of a guess.
        form: the field of a form that holds the file; None: the file is all that is sent.

    Raises:
        UsageError: the URL, method or content type can't be meant; the message has the cure, never a password.
    """
    shown = repr(masked(to))
    _check_characters(to, shown)
    scheme, rest = _split_scheme(to, shown)
    match = re.fullmatch(_AFTER_SCHEME, rest)
    assert match is not None  # the pattern takes any text without a line break
    authority, path, query, fragment = match.groups()
    if fragment is not None:
        raise UsageError(
            f"the URL {shown} has a fragment (#…), which is never sent: "
            "leave it out, or write %23 where # is part of a name"
        )
    host, port = _read_authority(authority, scheme, shown)
    path = path or "/"
    if "{" not in path + query and path.endswith("/"):
        path += "{path}"
    pieces = _read_template(path, query, shown)
    placeholders = {piece.placeholder for piece in pieces} - {None}
    naming = placeholders & {"path", "name", "stem"}
    simple = [piece.placeholder for piece in pieces] == ["path", None]
    bracketed = f"[{host.partition('%')[0]}]" if ":" in host else host  # RFC 6874 §1: a zone stays on this machine
    types = TypesBySuffix()
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        authority=(bracketed if port == _PORTS[scheme] else f"{bracketed}:{port}").encode(),
        method=_read_method(method, "PUT" if naming and form is None else "POST"),
        template=_without_secrets(to).encode("utf-8", "backslashreplace").decode(),
        unique=placeholders == {"path"},
        shared=not naming,
        _pieces=pieces,
        _shown=_read_template(path, _without_secrets(query), shown),
        labels=Labels(
            fill=functools.partial(_fill, pieces),
            folders=_Folders(pieces[0]) if simple else None,
            before=pieces[0].literal,
            after=pieces[-1].literal,
            as_is=pieces[0].escapes.as_is,
            escape=lambda base: pieces[0].escapes.applied(_parts(base)[0]),
            types=types,
            guess=lambda name: coded(name, types),
            unknown=UNKNOWN,
            declare=declared,
            declared=None if content_type is None else declared(content_type),
            form=None if form is None else _form(form),
        ),
    )


def _form(field: str) -> Form:
    from fastpost.forms import Form  # only for those who send one

    return Form(field)


# --- reading the URL ------------------------------------------------------------------------------

_PORTS: dict[str, int] = {"http": 80, "https": 443}
# Patterns are compiled where they are met first: 0.1 ms each, and few runs meet them all.
_SCHEME = "([A-Za-z][A-Za-z0-9+.-]*)://"
_AFTER_SCHEME = r"(?s)([^/?#]*)([^?#]*)((?:\?[^#]*)?)(#.*)?"
#: From the start of the host to the last "@": userinfo, also when its password has "/", "?" or "#" in it.
_USERINFO = "(?is)((?:[A-Za-z][A-Za-z0-9+.-]*:)?//|https?:/?|).*@"
#: The value of a query parameter whose name looks like a credential's, as in pre-signed URLs.
_SECRET = "([?&;]([^=&;{}]+)=)([^&;{}#]+)"
_SECRET_NAME = "(?i)sig|tok|secret|pass|pwd|pin|cred|key|auth|code|jwt|saml|sess|access|bearer|otp|hmac|nonce|ticket"
_ESCAPED = "%([0-9A-Fa-f]{2})"
_LOCAL = r"(?i)(?:localhost|127\.[0-9.]*|\[::1\])(?![^:/?#])"
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = rf"(?=.{{1,254}}\Z){_LABEL}(?:\.{_LABEL})*\.?"
#: Letters that the standard library's IDNA 2003 maps to others and IDNA 2008 keeps: another host would be reached.
_DEVIATIONS = "[ßςẞ\u200c\u200d]"


def _without_secrets(text: str) -> str:
    """Mask the values of query parameters whose names look like those of credentials."""

    def masked(parameter: re.Match[str]) -> str:
        name = re.sub(_ESCAPED, lambda escape: chr(int(escape[1], 16)), parameter[2])
        return f"{parameter[1]}***" if re.search(_SECRET_NAME, name) else parameter[0]

    return re.sub(_SECRET, masked, text) if "=" in text else text


def masked(to: str) -> str:
    """Return a URL that may be wrong in any way without what may be secret in it; rather too much than too little."""
    return _without_secrets(re.sub(_USERINFO, r"\1***@", to, count=1) if "@" in to else to)


def _check_characters(to: str, shown: str) -> None:
    if not to:
        raise UsageError("the URL is empty: write it like https://store.example/dav/")
    for place, character in enumerate(to, start=1):
        if character == " ":
            raise UsageError(f"the URL {shown} has a space (character {place}): write it as %20, or leave it out")
        # Lone surrogates are how Python hands over octets that aren't UTF-8; they are escaped like any other octet.
        if not character.isprintable() and not "\udc80" <= character <= "\udcff":
            code = f"U+{ord(character):04X}"
            raise UsageError(f"the URL {shown} has a control character ({code}, character {place}): leave it out")


def _split_scheme(to: str, shown: str) -> tuple[typing.Literal["http", "https"], str]:
    match = re.match(_SCHEME, to)
    if match is None:
        raise UsageError(_without_scheme(masked(to), shown))
    match match[1].lower():
        case "http":
            return "http", to[match.end() :]
        case "https":
            return "https", to[match.end() :]
        case other:
            raise UsageError(f"the URL {shown} starts with {other}://: fastpost uploads to https:// and http:// only")


def _without_scheme(masked: str, shown: str) -> str:
    """Say what is missing, and guess the URL that was meant."""
    slashes = re.match(r"(https?):/?(?!/)", masked, re.IGNORECASE)
    if slashes is not None:
        meant = f"{slashes[1].lower()}://{masked[slashes.end() :]}"
    elif masked.startswith("//"):
        meant = f"https:{masked}"
    elif masked.startswith(("/", "./", "../", "~")):
        return f"{shown} is a path on this machine, not a URL: write it like https://store.example/dav/"
    elif masked.startswith(":"):
        meant = f"http://localhost{masked}"
    else:
        meant = f"{'http' if re.match(_LOCAL, masked) else 'https'}://{masked}"
    return f"the URL {shown} has no scheme: did you mean {meant!r}?"


def _read_authority(authority: str, scheme: str, shown: str) -> tuple[str, int]:
    """Return host and port. A port that isn't one may be part of a password, so it is not repeated."""
    if "@" in authority:
        raise UsageError(
            f"the URL {shown} holds a user name or password: leave them out and give them by -u @FILE; "
            "in a URL they end up in logs"
        )
    if "{" in authority or "}" in authority:
        raise UsageError(f"the URL {shown} has a placeholder in its host: placeholders stand in path and query only")
    match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?", authority)
    if match is None:
        raise UsageError(
            f"the URL {shown} has a host that can't be read: host:port, an IPv6 address in brackets like http://[::1]:8080/"
        )
    text, digits = match.groups()
    if not text:
        raise UsageError(f"the URL {shown} has no host: write it like {scheme}://store.example/dav/")
    if not digits:
        return _read_host(text, shown), _PORTS[scheme]
    if re.fullmatch("[0-9]{1,9}", digits) is None or not 1 <= int(digits) <= 65535:
        raise UsageError(f"the URL {shown} has a port that isn't a number from 1 to 65535: correct it or leave it out")
    return _read_host(text, shown), int(digits)


def _read_host(text: str, shown: str) -> str:
    if text.startswith("["):
        return _read_ipv6(text[1:-1], shown)
    host = text.lower() if text.isascii() else _to_ascii(text, shown)
    if re.fullmatch(_HOST, host) is None:
        raise UsageError(
            f"the URL {shown} has a host name that can't exist: letters, digits, hyphens and dots, 63 between two dots"
        )
    return host


def _read_ipv6(text: str, shown: str) -> str:
    import ipaddress  # 10 ms, for the few who need it

    try:
        # RFC 6874: "%25" before a zone; many write a bare "%".
        return str(ipaddress.IPv6Address(text.replace("%25", "%", 1)))
    except ValueError:
        raise UsageError(
            f"the URL {shown} has something else than an IPv6 address in brackets: write it like http://[2001:db8::1]:8080/"
        ) from None


def _to_ascii(text: str, shown: str) -> str:
    """Encode a non-ASCII host name with the standard library's IDNA, which the `idna` package would do no leaner."""
    try:
        if re.search(_DEVIATIONS, text) is None:
            return text.encode("idna").decode("ascii").lower()
    except UnicodeError:
        pass
    raise UsageError(f"the URL {shown} has a host name that has no certain ASCII form: write it in its xn-- form")


def _read_method(method: str | None, default: str) -> bytes:
    if method is None:
        return default.encode()
    if re.fullmatch(TOKEN, method) is None:
        raise UsageError(f"method {method!r} is not an HTTP method: write PUT, POST or PATCH")
    if method.upper() in {"CONNECT", "GET", "HEAD", "TRACE"}:
        raise UsageError(f"method {method} can't carry a file (RFC 9110 §9.3): write PUT, POST or PATCH")
    # Methods are case-sensitive, and these three are certainly meant in capitals.
    return (method.upper() if method.upper() in {"PATCH", "POST", "PUT"} else method).encode()


# --- the template ---------------------------------------------------------------------------------

_PLACEHOLDERS = frozenset({"path", "name", "stem", "ext"})


def _read_template(path: str, query: str, shown: str) -> tuple[_Piece, ...]:
    if re.search(r"%(?![0-9A-Fa-f]{2})", path + query):
        raise UsageError(f"the URL {shown} has a % without two hex digits after it: write a literal % as %25")
    pieces: list[_Piece] = []
    literal = b""
    for part, names, literals in (
        (path, _NAME_IN_PATH, _TEMPLATE_PATH),
        (query, _NAME_IN_QUERY, _TEMPLATE_QUERY),
    ):
        # Every second part is what stood between braces.
        for place, text in enumerate(re.split(r"\{([^{}]*)\}", part)):
            if place % 2 == 0:
                if "{" in text or "}" in text:
                    raise UsageError(f"the URL {shown} has a brace without its other half: {_KNOWN}")
                literal += literals.applied(text.encode("utf-8", "surrogateescape"))
            elif text not in _PLACEHOLDERS:
                raise UsageError(f"the URL {shown} has the unknown placeholder {{{text}}}: {_KNOWN}")
            elif text == "ext" and literal.endswith(b"."):
                pieces.append(_Piece(literal[:-1], ".ext", names))
                literal = b""
            else:
                pieces.append(_Piece(literal, text, names))
                literal = b""
    return (*pieces, _Piece(literal, None, _TEMPLATE_QUERY))


_KNOWN = "fastpost knows {path}, {name}, {stem} and {ext}; write a literal brace as %7B or %7D"


def _fill(pieces: tuple[_Piece, ...], name: bytes) -> bytes:
    """Put a name into a template."""
    base = _parts(name)[-1]
    filled = [
        piece.literal + piece.escapes.applied(_value(piece.placeholder, name, base))
        for piece in pieces
        if piece.placeholder is not None
    ]
    return b"".join(filled) + pieces[-1].literal


class _Folders(dict[bytes, bytes]):
    """What a request path has before the base name, by folder. Files come folder by folder: each is escaped once."""

    LIMIT = 1024

    def __init__(self, piece: _Piece) -> None:
        super().__init__()
        self._piece = piece

    def __missing__(self, folder: bytes) -> bytes:
        escaped = self._piece.literal + self._piece.escapes.applied(b"/".join(_parts(folder))) + b"/"
        if len(self) >= self.LIMIT:
            self.clear()
        self[folder] = escaped
        return escaped


def _parts(name: bytes) -> list[bytes]:
    """Split a name at its slashes. Refuse what a server would resolve to another place."""
    parts = name.split(b"/")
    if b"" in parts or b"." in parts or b".." in parts:
        raise UsageError(
            f"the name {name!r} can't be put in a URL: it must be relative, without empty parts, '.' and '..'"
        )
    return parts


def _value(placeholder: str, name: bytes, base: bytes) -> bytes:
    if placeholder == "path":
        return name
    if placeholder == "name":
        return base
    stem, ext = _split_extension(base)
    if placeholder == "stem":
        return stem
    return b"." + ext if ext and placeholder == ".ext" else ext


def _split_extension(base: bytes) -> tuple[bytes, bytes]:
    """Split at the last dot that has something other than dots before it and anything after it."""
    stem, _, ext = base.rpartition(b".")
    return (stem, ext) if ext and stem.strip(b".") else (base, b"")

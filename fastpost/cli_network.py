"""How uploads travel: the options of `upload` for request, identity, trust, the way there, patience and pace.

`bench` and `probe` have those that mean the same there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click

from fastpost.cli_types import Detour, Field, Octets, Read, Token, UserPassword
from fastpost.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Options that say where a server is, and mean nothing for the embedded one.
_ONLY_TO: Final = {"unix_socket": "--unix-socket", "connect_to": "--connect-to"}
#: Options that say who the user is, besides -H: at most one of them can be meant.
_IDENTITIES: Final = {"oauth2_bearer": "--oauth2-bearer", "user": "--user"}


def networking(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which gets their values by name; `settings` makes something of them."""
    for option in reversed(_OPTIONS):
        option(command)
    return command


def settings(to: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `Settings` that these values stand for. Raises UsageError.

    Args:
        to: the URL; None: the embedded server, of which no netrc file knows.
        given: the values of the options by name; what is no option here is handed on.
    """
    rest = dict(given)
    if to is None:
        check_embedded(given)
    for name in ("cacert", "cert", "key"):
        if name in rest:
            rest[name] = _path(rest[name])
    header = rest.pop("header", ())
    identity = _identity(header, {name: rest.pop(name, None) for name in _IDENTITIES})
    if rest.pop("netrc", False) and to is not None and identity is None and not _says_who(header):
        identity = _from_netrc(to)
    return rest | {"fields": header if identity is None else (*header, ("Authorization", identity))}


def check_embedded(given: dict[str, Any]) -> None:
    """Raise UsageError when options say where a server is, and the embedded one was asked for."""
    for name, option in _ONLY_TO.items():
        if given.get(name):
            raise UsageError(f"{option} needs the URL of a server: the embedded one is on a port of its own")


def _identity(header: tuple[tuple[str, str], ...], given: dict[str, Any]) -> str | None:
    """Return the Authorization field that an option stands for; there may be one."""
    named = [_IDENTITIES[name] for name, value in given.items() if value is not None]
    if _says_who(header):
        named.append("-H 'Authorization: …'")
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} both say who you are: leave one out")
    if given["oauth2_bearer"] is not None:
        return f"Bearer {given['oauth2_bearer']}"
    return None if given["user"] is None else _basic(*given["user"])


def _says_who(header: tuple[tuple[str, str], ...]) -> bool:
    return any(name.lower() == "authorization" for name, _ in header)


def _basic(user: str, password: str) -> str:
    """Return the field of RFC 7617, in UTF-8."""
    import base64

    return "Basic " + base64.b64encode(os.fsencode(f"{user}:{password}")).decode()


def netrc_file() -> str:
    """Return the file that --netrc reads."""
    return os.environ.get("NETRC") or os.path.expanduser("~/.netrc")


def _from_netrc(to: str) -> str:
    """Look the host up in ~/.netrc, or in the file that NETRC names."""
    import netrc

    from fastpost.target import parse

    host = parse(to).host
    file = netrc_file()
    try:
        found = netrc.netrc(file).authenticators(host)
    except netrc.NetrcParseError as error:
        # Not its own message: that repeats a word, and the word may be of a password with a blank in it.
        raise UsageError(
            f"--netrc: {file} can't be understood, about line {error.lineno}: put what holds a blank in quotes"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UsageError(f"--netrc: {file} can't be read ({reason}): name another file by NETRC") from None
    if found is None:
        raise UsageError(
            f"--netrc: {file} has no entry for {host}, and no default: add 'machine {host} login … password …'"
        )
    login, _, password = found
    if ":" in (login or ""):
        raise UsageError(f"--netrc: {file}: the login of {host} holds a colon, which no user name may (RFC 7617)")
    return _basic(login or "", password or "")


def _path(name: str | None) -> Any:
    if not name:
        return None
    import pathlib  # 2 ms, for those who name such a file

    return pathlib.Path(name)


_OPTIONS = (
    click.option(
        "--form",
        metavar="FIELD",
        help="Send each file as a browser's form does, in this field (multipart/form-data).",
    ),
    click.option("-H", "--header", metavar="'NAME: VALUE'", type=Field(), multiple=True, help="Add a request header."),
    click.option(
        "--oauth2-bearer",
        metavar="TOKEN",
        type=Token(),
        help="Send 'Authorization: Bearer TOKEN'; @FILE reads it from a file. Others can read a command line: better "
        "give a file, or FASTPOST_UPLOAD_OAUTH2_BEARER.",
    ),
    click.option(
        "-u",
        "--user",
        metavar="NAME:PASSWORD",
        type=UserPassword(),
        help="Send them as Basic authorization; @FILE reads both from a file.",
    ),
    click.option("--netrc", is_flag=True, help="Take name and password from ~/.netrc, or the file that NETRC names."),
    click.option("--content-type", metavar="TYPE", help="For every file. Default: guessed from the name."),
    click.option("--cacert", metavar="FILE", type=Read(), help="Trust the CA certificates of this PEM file alone."),
    click.option("--cert", metavar="FILE", type=Read(), help="Client certificate, PEM."),
    click.option("--key", metavar="FILE", type=Read(), help="Its private key, if not in the same file."),
    click.option("-k", "--insecure", is_flag=True, help="Don't verify the server's certificate."),
    click.option(
        "--connect-to",
        metavar="HOST:PORT:HOST:PORT",
        type=Detour(),
        multiple=True,
        help="Connect to the second for the first; what is empty means any, or the same. URL and certificate stay.",
    ),
    click.option("--unix-socket", metavar="PATH", help="Connect to this Unix socket, whatever the host."),
    click.option("--connect-timeout", metavar="S", default=10.0, show_default=True, help="Seconds to connect in."),
    click.option(
        "--stall-timeout", metavar="S", default=60.0, show_default=True, help="Seconds an upload may stand still."
    ),
    click.option("--max-time", metavar="S", type=float, help="Seconds that an upload may take, each time it is tried."),
    click.option(
        "--limit-rate",
        metavar="SIZE",
        type=Octets(),
        help="Send so much of files in a second, over all connections: 10M.",
    ),
    click.option("--retries", metavar="N", default=3, show_default=True, help="New attempts for one file."),
    click.option(
        "--retry-delay",
        metavar="S",
        default=0.5,
        show_default=True,
        help="Seconds before the first; doubles each time.",
    ),
    click.option(
        "--retry-max-time",
        metavar="S",
        type=float,
        help="Seconds after which no file is tried again; default: no limit.",
    ),
    click.option("--retry-post", is_flag=True, help="Try POST again too, though the server may have acted on it."),
    click.option(
        "-L",
        "--location",
        is_flag=True,
        help="Follow redirects with status 307 and 308; to another server without -H fields, token and client "
        "certificate.",
    ),
)

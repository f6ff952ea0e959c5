"""TLS as a client: the context, and what a failed handshake means, with its cure. No socket is touched here."""

from __future__ import annotations

import errno
import os
import ssl
import typing

from fastpost.errors import CertificateNotTrusted, ConnectFailed, FastpostError, NotHttp2, TlsFailed

if typing.TYPE_CHECKING:
    from fastpost.config import Settings

#: X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH.
_OTHER_HOST = (62, 64)


def client_context(settings: Settings) -> ssl.SSLContext:
    """Return the client context: TLS 1.2 at least, verification on unless `insecure`, ALPN h2 alone.

    Raises TlsFailed when a certificate or key file can't be used.
    """
    # Who looks at no certificate is spared the loading of all that the system trusts, 17 ms: here are none.
    empty = os.devnull if settings.insecure and settings.cacert is None else None
    try:
        context = ssl.create_default_context(cafile=settings.cacert, capath=empty)
    except OSError as error:
        if error.filename is not None:  # the only file that the ssl module opens by itself, and names
            raise TlsFailed(
                f"SSLKEYLOGFILE {os.fsdecode(error.filename)}: no keys can be logged there ({reason(error)}): "
                "name a file that can be written, or unset it"
            ) from None
        raise TlsFailed(f"--cacert {settings.cacert}: no PEM certificates could be read ({reason(error)})") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert is not None:
        try:
            context.load_cert_chain(settings.cert, settings.key)
        except OSError as error:
            raise TlsFailed(
                f"--cert {settings.cert}{f' --key {settings.key}' if settings.key else ''}: can't be loaded "
                f"({reason(error)}): both certificate and key must be PEM, and belong together"
            ) from None
    return context


def failure(error: OSError | ValueError, where: str) -> FastpostError:
    """Return what a failed handshake means, with its cure."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_HOST:
            return CertificateNotTrusted(
                f"{where}: the server's certificate is for another host ({error.verify_message}): "
                "write the host name that it was issued for in the URL, or, for a test, use --insecure"
            )
        return CertificateNotTrusted(
            f"{where}: the server's certificate is not trusted ({error.verify_message}): "
            "name the CA that signed it with --cacert FILE, or, for a test, use --insecure"
        )
    code = getattr(error, "reason", None)
    if "no application protocol" in str(error).replace("_", " ").lower():  # not every OpenSSL has a name for it
        return NotHttp2(no_alpn(where))
    if isinstance(error, ssl.SSLEOFError | ConnectionError) or getattr(error, "errno", None) == errno.ENOTCONN:
        return ConnectFailed(
            f"{where} ended the connection in the midst of the TLS handshake ({reason(error)}): "
            "check that the server is up, and its log"
        )
    if code in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return TlsFailed(f"{where} does not speak TLS: for cleartext HTTP/2 write http:// in the URL")
    return TlsFailed(f"{where}: the TLS handshake failed ({reason(error)})")


def no_alpn(where: str) -> str:
    """Return the message for a server that did not choose h2 by ALPN."""
    return (
        f"{where} speaks TLS but not HTTP/2 (ALPN offered h2, the server did not take it): "
        "switch HTTP/2 on at the server; fastpost has no HTTP/1.1"
    )


def reason(error: BaseException) -> str:
    """Return what an error of the ssl module or of the system says, in few words."""
    code = getattr(error, "reason", None)
    if isinstance(code, str):
        return code.replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

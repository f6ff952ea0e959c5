"""What a name says of a file's content: content-type and content-encoding (RFC 9110 §8.3, §8.4)."""

from __future__ import annotations

import functools
import re

from fastpost.errors import UsageError

Fields = tuple[tuple[bytes, bytes], ...]

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_MEDIA_TYPE = rf"{TOKEN}/{TOKEN}(?:[ \t]*;[ \t]*[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?"

#: Content codings that are registered (RFC 9110 §8.4.1, RFC 7932, RFC 8878), by suffix, with the type of such a file
#: when nothing is known of its content. bzip2 and xz have no registered coding: those files are what they are.
_CODINGS = {
    b"gz": ("gzip", "application/gzip"),
    b"Z": ("compress", "application/x-compress"),
    b"br": ("br", "application/octet-stream"),
    b"zst": ("zstd", "application/zstd"),
}
_SHORT_FORMS = {
    "svgz": ("image/svg+xml", "gzip"),
    "taz": ("application/x-tar", "gzip"),
    "tgz": ("application/x-tar", "gzip"),
    "tz": ("application/x-tar", "gzip"),
}

#: What is uploaded most, and what older versions of `mimetypes` lack. For these alone that module isn't loaded, which
#: takes 20 ms with the system's lists that it reads at first use, asked or not.
_TYPES = {
    suffix: media_type
    for media_type, suffixes in {
        "application/epub+zip": "epub",
        "application/json": "json",
        "application/msword": "doc",
        "application/octet-stream": "bin dat img iso",
        "application/pdf": "pdf",
        "application/toml": "toml",
        "application/vnd.apache.parquet": "parquet",
        "application/vnd.oasis.opendocument.presentation": "odp",
        "application/vnd.oasis.opendocument.spreadsheet": "ods",
        "application/vnd.oasis.opendocument.text": "odt",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
        "application/vnd.rar": "rar",
        "application/vnd.sqlite3": "sqlite sqlite3",
        "application/wasm": "wasm",
        "application/x-7z-compressed": "7z",
        "application/x-bzip2": "bz2 tbz2",
        "application/x-ndjson": "ndjson jsonl",
        "application/x-tar": "tar",
        "application/x-xz": "xz txz",
        "application/yaml": "yaml yml",
        "application/zip": "zip",
        "audio/flac": "flac",
        "audio/mp4": "m4a",
        "audio/mpeg": "mp3",
        "audio/ogg": "ogg oga opus",
        "audio/wav": "wav",
        "font/woff": "woff",
        "font/woff2": "woff2",
        "image/avif": "avif",
        "image/gif": "gif",
        "image/heic": "heic",
        "image/heif": "heif",
        "image/jpeg": "jpg jpeg",
        "image/png": "png",
        "image/svg+xml": "svg",
        "image/tiff": "tif tiff",
        "image/webp": "webp",
        "image/x-adobe-dng": "dng",
        "text/css": "css",
        "text/csv": "csv",
        "text/html": "html htm",
        "text/javascript": "js mjs",
        "text/markdown": "md",
        "text/plain": "txt log",
        "text/x-python": "py",
        "text/xml": "xml",
        "video/mp4": "mp4 m4v",
        "video/quicktime": "mov",
        "video/webm": "webm",
        "video/x-matroska": "mkv",
    }.items()
    for suffix in suffixes.split()
}


@functools.cache
def _labelled(media_type: str, coding: str | None = None) -> Fields:
    """Return the fields; equal ones are one object."""
    fields = ((b"content-type", media_type.encode("ascii")),)
    return fields if coding is None else (*fields, (b"content-encoding", coding.encode("ascii")))


UNKNOWN = _labelled("application/octet-stream")


@functools.lru_cache(maxsize=1024)
def declared(content_type: str) -> Fields:
    """Return the field for a type that the user gave; no coding is guessed beside it."""
    if re.fullmatch(_MEDIA_TYPE, content_type) is None:
        raise UsageError(
            f"content type {content_type!r} is not a media type: write it like image/png or text/plain; charset=utf-8"
        )
    return _labelled(content_type)


class TypesBySuffix(dict[bytes, Fields | None]):
    """Fields by what follows the last dot; None: a content coding, and the suffix before it decides."""

    #: Names that end in random characters must not fill the memory.
    LIMIT = 4096

    def __missing__(self, suffix: bytes) -> Fields | None:
        if b"/" in suffix:  # the dot was in a folder's name
            return UNKNOWN
        fields = _guess(suffix)
        if len(self) < self.LIMIT:
            self[suffix] = fields
        return fields


def _guess(suffix: bytes) -> Fields | None:
    if _coding(suffix) is not None:
        return None
    text = suffix.decode("latin-1").lower()
    if text in _SHORT_FORMS:
        return _labelled(*_SHORT_FORMS[text])
    media_type = _TYPES.get(text) or _stdlib_types().get(f".{text}")
    return UNKNOWN if media_type is None else _labelled(media_type)


def _coding(suffix: bytes) -> tuple[str, str] | None:
    # ".Z" is compress, ".z" is not.
    return _CODINGS.get(suffix) or _CODINGS.get(suffix.lower())


def coded(name: bytes, types: TypesBySuffix) -> Fields:
    """Return the fields of a compressed file: what it holds, and the coding; else the type of the compressed file."""
    head, _, suffix = name.rpartition(b".")
    known = _coding(suffix)
    assert known is not None
    coding, own_type = known
    before, _, inner_suffix = head.rpartition(b".")
    inner = types[inner_suffix] if before and before[-1:] != b"/" else None
    if inner is None or inner is UNKNOWN or len(inner) > 1:
        return _labelled(own_type)
    return _labelled(inner[0][1].decode("ascii"), coding)


@functools.cache
def _stdlib_types() -> dict[str, str]:
    """Return the types that come with Python, not the system's: else each machine would label the same file its way."""
    import mimetypes

    known = mimetypes.MimeTypes(filenames=())
    return {**known.types_map[False], **known.types_map[True]}

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

#: What Python 3.11's `mimetypes` knows, and what it lacks. Our own table: neither the version of Python nor lists of
#: the system change how a file is labelled. To load that module takes 6 ms, half of it for those lists, which it reads
#: at first use, asked or not.
_TYPES = {
    suffix: media_type
    for media_type, suffixes in {
        "application/epub+zip": "epub",
        "application/json": "json",
        "application/manifest+json": "webmanifest",
        "application/msword": "doc dot wiz",
        "application/n-quads": "nq",
        "application/n-triples": "nt",
        "application/octet-stream": "bin dat img iso a dll exe o obj so",
        "application/oda": "oda",
        "application/pdf": "pdf",
        "application/pkcs7-mime": "p7c",
        "application/postscript": "ps ai eps",
        "application/rtf": "rtf",
        "application/toml": "toml",
        "application/trig": "trig",
        "application/vnd.apache.parquet": "parquet",
        "application/vnd.apple.mpegurl": "m3u m3u8",
        "application/vnd.ms-excel": "xls xlb",
        "application/vnd.ms-fontobject": "eot",
        "application/vnd.ms-powerpoint": "ppt pot ppa pps pwz",
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
        "application/x-bcpio": "bcpio",
        "application/x-bzip2": "bz2 tbz2",
        "application/x-cpio": "cpio",
        "application/x-csh": "csh",
        "application/x-dvi": "dvi",
        "application/x-gtar": "gtar",
        "application/x-hdf": "hdf",
        "application/x-hdf5": "h5",
        "application/x-latex": "latex",
        "application/x-mif": "mif",
        "application/x-ndjson": "ndjson jsonl",
        "application/x-netcdf": "cdf nc",
        "application/x-pkcs12": "p12 pfx",
        "application/x-pn-realaudio": "ram",
        "application/x-python-code": "pyc pyo",
        "application/x-sh": "sh",
        "application/x-shar": "shar",
        "application/x-shockwave-flash": "swf",
        "application/x-sv4cpio": "sv4cpio",
        "application/x-sv4crc": "sv4crc",
        "application/x-tar": "tar",
        "application/x-tcl": "tcl",
        "application/x-tex": "tex",
        "application/x-texinfo": "texi texinfo",
        "application/x-troff": "roff t tr",
        "application/x-troff-man": "man",
        "application/x-troff-me": "me",
        "application/x-troff-ms": "ms",
        "application/x-ustar": "ustar",
        "application/x-wais-source": "src",
        "application/x-xz": "xz txz",
        "application/xml": "xsl rdf wsdl xpdl",
        "application/yaml": "yaml yml",
        "application/zip": "zip",
        "audio/3gpp": "3gp 3gpp",
        "audio/3gpp2": "3g2 3gpp2",
        "audio/aac": "aac adts loas ass",
        "audio/basic": "au snd",
        "audio/flac": "flac",
        "audio/midi": "midi mid",
        "audio/mp4": "m4a",
        "audio/mpeg": "mp3 mp2",
        "audio/ogg": "ogg oga opus",
        "audio/wav": "wav",
        "audio/x-aiff": "aif aifc aiff",
        "audio/x-matroska": "mka",
        "audio/x-pn-realaudio": "ra",
        "font/collection": "ttc",
        "font/otf": "otf",
        "font/ttf": "ttf",
        "font/woff": "woff",
        "font/woff2": "woff2",
        "image/avif": "avif",
        "image/bmp": "bmp",
        "image/gif": "gif",
        "image/heic": "heic",
        "image/heif": "heif",
        "image/ief": "ief",
        "image/jpeg": "jpg jpeg jpe",
        "image/pict": "pict pct pic",
        "image/png": "png",
        "image/svg+xml": "svg",
        "image/tiff": "tif tiff",
        "image/vnd.microsoft.icon": "ico",
        "image/webp": "webp",
        "image/x-adobe-dng": "dng",
        "image/x-cmu-raster": "ras",
        "image/x-portable-anymap": "pnm",
        "image/x-portable-bitmap": "pbm",
        "image/x-portable-graymap": "pgm",
        "image/x-portable-pixmap": "ppm",
        "image/x-rgb": "rgb",
        "image/x-xbitmap": "xbm",
        "image/x-xpixmap": "xpm",
        "image/x-xwindowdump": "xwd",
        "message/rfc822": "eml mht mhtml nws",
        "text/css": "css",
        "text/csv": "csv",
        "text/html": "html htm",
        "text/javascript": "js mjs",
        "text/markdown": "md",
        "text/n3": "n3",
        "text/plain": "txt log bat c h ksh pl srt",
        "text/richtext": "rtx",
        "text/tab-separated-values": "tsv",
        "text/vtt": "vtt",
        "text/x-python": "py",
        "text/x-rst": "rst",
        "text/x-setext": "etx",
        "text/x-sgml": "sgm sgml",
        "text/x-vcard": "vcf",
        "text/xml": "xml",
        "text/xul": "xul",
        "video/mp4": "mp4 m4v",
        "video/mpeg": "mpeg m1v mpa mpe mpg",
        "video/quicktime": "mov qt",
        "video/webm": "webm",
        "video/x-matroska": "mkv",
        "video/x-msvideo": "avi",
        "video/x-sgi-movie": "movie",
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
    media_type = _TYPES.get(text)
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

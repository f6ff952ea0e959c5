"""The HPACK coder beside the hpack package: the header block of one request, and of one response."""

from __future__ import annotations

import collections.abc

import hpack
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fastpost._hpack_decoder import ResponseDecoder
from fastpost._hpack_encoder import RequestEncoder, encode_literals

PATH = b"/dav/photos/2024/summer/IMG_20240714_181512.jpg"
AGENT, CONTENT_TYPE = (b"user-agent", b"fastpost/0.1"), (b"content-type", b"image/jpeg")
RESPONSE = [
    (b":status", b"201"),
    (b"server", b"nginx/1.22.1"),
    (b"date", b"Sun, 14 Jul 2024 18:15:12 GMT"),
    (b"content-length", b"0"),
    (b"location", b"https://store.example:8443" + PATH),
]


@pytest.mark.benchmark(group="hpack: a request")
def test_request(benchmark: BenchmarkFixture) -> None:
    encoder = RequestEncoder(b"PUT", b"https", b"store.example:8443", [AGENT])
    literals = encode_literals([CONTENT_TYPE])
    encoder.encode(PATH, 4096, literals)
    benchmark(encoder.encode, PATH, 4096, literals)


@pytest.mark.benchmark(group="hpack: a request")
def test_request_with_hpack(benchmark: BenchmarkFixture) -> None:
    encoder = hpack.Encoder()
    constants = [(b":method", b"PUT"), (b":scheme", b"https"), (b":authority", b"store.example:8443"), AGENT]
    request = [hpack.HeaderTuple(*field) for field in constants]
    request.insert(3, hpack.NeverIndexedHeaderTuple(b":path", PATH))
    request += [hpack.NeverIndexedHeaderTuple(*field) for field in ((b"content-length", b"4096"), CONTENT_TYPE)]
    encoder.encode(request)
    benchmark(encoder.encode, request)


def response_blocks(kind: str) -> list[bytes]:
    """Return two blocks: one that prepares the table, and the one to decode again and again."""
    server = hpack.Encoder()
    if kind != "indexed":
        server.header_table_size = 0
    return [server.encode(RESPONSE, huffman=kind != "raw") for _ in range(2)]


@pytest.mark.parametrize("kind", ["indexed", "raw", "huffman"])
@pytest.mark.parametrize("reader", ["status", "fields", "hpack"])
def test_response(benchmark: BenchmarkFixture, kind: str, reader: str) -> None:
    benchmark.group = f"hpack: a response, {kind}"
    first, again = response_blocks(kind)
    if reader == "hpack":
        decode: collections.abc.Callable[..., object] = hpack.Decoder().decode
        decode(first, True)
        benchmark(decode, again, True)
    else:
        decode = ResponseDecoder().decode_block
        decode(first, False)
        benchmark(decode, again, reader == "fields")

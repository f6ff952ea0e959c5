"""HPACK, judged by RFC 7541's own examples and by the hpack package."""

from __future__ import annotations

import contextlib
import tracemalloc

import hpack
import pytest
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from fastpost._hpack_decoder import ResponseDecoder
from fastpost._hpack_encoder import RequestEncoder, encode_literals
from fastpost.errors import ErrorCode, ProtocolViolation

Field = tuple[bytes, bytes]

names = st.sampled_from([b"server", b"date", b"etag", b"x-a", b"content-range", b"set-cookie"]) | st.from_regex(
    rb"\A[!#$%&'*+.^_`|~0-9a-z-]{1,150}\Z"
)
values = st.binary(max_size=300).map(lambda value: value.translate(None, b"\0\r\n"))
fields = st.tuples(names.filter(lambda name: name != b"upgrade" and name != b"connection"), values)
table_sizes = st.sampled_from([0, 31, 33, 64, 100, 300, 1000, 4095, 4096])


def read(decoder: hpack.Decoder, block: bytes) -> list[Field]:
    """Return what a server makes of a block."""
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]


def literal(name: bytes, value: bytes, first: int = 0) -> bytes:
    """Return a literal representation with short raw strings; first is its first octet."""
    return bytes([first, len(name)]) + name + bytes([len(value)]) + value


def refusal(decoder: ResponseDecoder, block: bytes) -> ErrorCode:
    """Return the code of the connection error that a block is."""
    with pytest.raises(ProtocolViolation) as caught:
        decoder.decode_block(block)
    assert decoder.status == 0
    assert decoder.fields is None
    return ErrorCode(caught.value.error_code)


# --- RFC 7541's tables ----------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(1, 62))
def test_static_table(index: int) -> None:
    name, value = HeaderTable.STATIC_TABLE[index - 1]
    decoder = ResponseDecoder()
    if name == b":status":
        assert decoder.decode_block(bytes([0x80 | index]))
        assert decoder.status == int(value)
    elif name.startswith(b":") or name in (b"transfer-encoding", b"content-length"):
        assert not decoder.decode_block(bytes([0x88, 0x80 | index]))
    else:
        assert decoder.decode_block(bytes([0x88, 0x80 | index]))
        assert decoder.fields == [(name, value)]


@pytest.mark.parametrize("octet", range(256))
def test_huffman_code_of_every_octet(octet: int) -> None:
    # So many digits round it, of 5 bits each, that Huffman coding is shorter with any octet at any bit offset.
    for digits in range(8, 40):
        value = b"0" * digits + bytes([octet]) + b"1" * 40
        block = encode_literals([(b"x", value)])
        assert len(block) < len(value)
        assert read(hpack.Decoder(), block) == [(b"x", value)]
        if octet not in b"\0\r\n":
            decoder = ResponseDecoder()
            assert decoder.decode_block(block, trailers=True)
            assert decoder.fields == [(b"x", value)]


# --- requests -------------------------------------------------------------------------------------


def test_the_rfc_example_of_a_huffman_coded_request() -> None:
    encoder = RequestEncoder(b"GET", b"http", b"www.example.com")
    # RFC 7541 §C.4.1, but for the :path: we never take it from the static table.
    assert encoder.encode(b"/", -1).hex() == "8286418cf1e3c2e5f23a6ba0ab90f4ff" + "04012f"


def test_constant_fields_are_one_octet_each_after_the_first_block() -> None:
    constants = [(b"user-agent", b"fastpost"), (b"accept", b"*/*"), (b"x-a", b"1")]
    encoder, server = RequestEncoder(b"PUT", b"https", b"store.example", constants), hpack.Decoder()
    expected = [(b":method", b"PUT"), (b":scheme", b"https"), (b":authority", b"store.example"), (b":path", b"/a")]
    expected += [*constants, (b"content-length", b"7")]
    blocks = [encoder.encode(b"/a", 7) for _ in range(3)]
    assert [read(server, block) for block in blocks] == [expected] * 3
    assert len(blocks[0]) > len(blocks[1])
    assert [len(block) for block in blocks[1:]] == [3 + len(b"\x04\x02/a") + 3 + len(b"\x0f\x0d\x017")] * 2
    assert len(server.header_table.dynamic_entries) == 5


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 16_509, 16_510, 16_511, 3_000_000])
def test_a_path_of_any_length(length: int) -> None:
    encoder, server = RequestEncoder(b"PUT", b"https", b"a"), hpack.Decoder(max_header_list_size=1 << 30)
    path = b"/" * length
    assert read(server, encoder.encode(path, 1))[3] == (b":path", path)


@pytest.mark.parametrize("length", [0, 9, 10, 4096, 99_999, 10**12, 2**63 - 1])
def test_content_length(length: int) -> None:
    block = RequestEncoder(b"PUT", b"https", b"a").encode(b"/", length)
    assert read(hpack.Decoder(), block)[-1] == (b"content-length", b"%d" % length)


def test_no_content_length() -> None:
    block = RequestEncoder(b"PUT", b"https", b"a").encode(b"/", -1)
    assert [name for name, _ in read(hpack.Decoder(), block)] == [b":method", b":scheme", b":authority", b":path"]


def test_literals_come_last_and_are_not_indexed() -> None:
    encoder, server = RequestEncoder(b"PUT", b"https", b"a"), hpack.Decoder()
    literals = [(b"content-type", b"image/jpeg"), (b"x-unheard-of", b"1")]
    server.decode(encoder.encode(b"/", 1))
    held = len(server.header_table.dynamic_entries)
    assert read(server, encoder.encode(b"/", 1, encode_literals(literals)))[-2:] == literals
    assert len(server.header_table.dynamic_entries) == held


def test_names_are_sent_in_lower_case() -> None:
    encoder = RequestEncoder(b"PUT", b"https", b"a", [(b"X-One", b"A")])
    block = encoder.encode(b"/", -1, encode_literals([(b"TWO", b"B")]))
    assert read(hpack.Decoder(), block)[-2:] == [(b"x-one", b"A"), (b"two", b"B")]


@pytest.mark.parametrize("name", [b"authorization", b"Cookie", b"proxy-authorization", b"x-api-key", b"X-Auth-Token"])
def test_credentials_are_never_indexed(name: bytes) -> None:
    field = (name, b"Bearer secret")
    encoder, server = RequestEncoder(b"PUT", b"https", b"a", [field]), hpack.Decoder()
    for _ in range(2):
        decoded = list(server.decode(encoder.encode(b"/", -1, encode_literals([field])), raw=True))
        assert [tuple(field) for field in decoded[-2:]] == [(name.lower(), b"Bearer secret")] * 2
        assert all(isinstance(field, hpack.NeverIndexedHeaderTuple) for field in decoded[-2:])
    assert all(b"secret" not in value for _, value in server.header_table.dynamic_entries)


def test_constants_that_do_not_fit_are_literals_and_evict_nothing() -> None:
    constants = [(b"x-%d" % number, b"v" * 1000) for number in range(6)] + [(b"x-small", b"")]
    encoder, server = RequestEncoder(b"PUT", b"https", b"a", constants), hpack.Decoder()
    blocks = [encoder.encode(b"/", -1) for _ in range(3)]
    assert [read(server, block)[4:] for block in blocks] == [constants] * 3
    held = [name for name, _ in server.header_table.dynamic_entries]
    assert held == [b"x-small", b"x-2", b"x-1", b"x-0", b":authority", b":method"]
    assert blocks[1] == blocks[2]


def test_a_constant_field_that_is_given_twice() -> None:
    constants = [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"1")]
    encoder, server = RequestEncoder(b"PUT", b"https", b"a", constants), hpack.Decoder()
    assert [read(server, encoder.encode(b"/", -1))[4:] for _ in range(2)] == [constants] * 2


def test_a_table_size_of_1337_is_the_rfc_example_of_an_integer() -> None:
    encoder = RequestEncoder(b"PUT", b"https", b"a")
    encoder.set_table_size(1337)
    # RFC 7541 §C.1.2: 1337 with a prefix of 5 bits; the table is emptied first.
    assert encoder.encode(b"/", -1)[:4].hex() == "20" + "3f9a0a"
    assert encoder.table_size == 1337


@pytest.mark.parametrize("limit", [4096, 4097, 65_536, 2**32 - 1])
def test_a_larger_table_is_not_used(limit: int) -> None:
    encoder, untouched = (RequestEncoder(b"PUT", b"https", b"a") for _ in range(2))
    encoder.set_table_size(limit)
    assert [encoder.encode(b"/", 1) for _ in range(2)] == [untouched.encode(b"/", 1) for _ in range(2)]
    encoder.set_table_size(limit)
    assert encoder.encode(b"/", 1) == untouched.encode(b"/", 1)


def test_without_a_table_everything_is_literal() -> None:
    encoder, server = RequestEncoder(b"PUT", b"https", b"store.example"), hpack.Decoder()
    encoder.set_table_size(0)
    first, second = encoder.encode(b"/", 1), encoder.encode(b"/", 1)
    assert first == b"\x20" + second
    assert read(server, first) == read(server, second)
    assert not server.header_table.dynamic_entries


def test_lowered_and_raised_between_blocks_signals_the_least() -> None:
    encoder, server = RequestEncoder(b"PUT", b"https", b"a", [(b"x-a", b"1")]), hpack.Decoder()
    before = read(server, encoder.encode(b"/", 1))
    encoder.set_table_size(50)
    encoder.set_table_size(4096)
    block = encoder.encode(b"/", 1)
    assert block[:4].hex() == "20" + "3fe11f"
    assert read(server, block) == before
    assert len(server.header_table.dynamic_entries) == 3
    assert read(server, encoder.encode(b"/", 1)) == before


@given(
    st.sampled_from([b"PUT", b"POST", b"PROPFIND"]),
    st.lists(fields, max_size=6),
    st.lists(
        st.tuples(st.lists(table_sizes, max_size=3), values, st.integers(-1, 2**63 - 1), st.lists(fields, max_size=3))
    ),
)
def test_hpack_reads_what_we_write(
    method: bytes, constants: list[Field], requests: list[tuple[list[int], bytes, int, list[Field]]]
) -> None:
    encoder, server = RequestEncoder(method, b"https", b"store.example", constants), hpack.Decoder()
    for limits, path, length, literals in requests:
        for limit in limits:
            encoder.set_table_size(limit)
            server.max_allowed_table_size = limit
        expected = [(b":method", method), (b":scheme", b"https"), (b":authority", b"store.example"), (b":path", path)]
        expected += [*constants, *[(b"content-length", b"%d" % length)][: length + 1], *literals]
        assert read(server, encoder.encode(path, length, encode_literals(literals))) == expected


@pytest.mark.parametrize(
    "arguments", [("PUT", b"https", b"a"), (b"PUT", b"https", None), (b"PUT", b"https", b"a", [("x", b"")])]
)
def test_text_is_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        RequestEncoder(*arguments)  # type: ignore[arg-type]


# --- responses ------------------------------------------------------------------------------------

DATE_1, DATE_2 = b"Mon, 21 Oct 2013 20:13:21 GMT", b"Mon, 21 Oct 2013 20:13:22 GMT"
COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
LOCATION = (b"location", b"https://www.example.com")
PRIVATE = (b"cache-control", b"private")
RFC_RESPONSES = [
    (302, [PRIVATE, (b"date", DATE_1), LOCATION]),
    (307, [PRIVATE, (b"date", DATE_1), LOCATION]),
    (200, [PRIVATE, (b"date", DATE_2), LOCATION, (b"content-encoding", b"gzip"), (b"set-cookie", COOKIE)]),
]
RFC_BLOCKS = {
    "C.5": [
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
        "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
        "4803333037c1c0bf",
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738"
        "666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
    ],
    "C.6": [
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab"
        "77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
    ],
}


@pytest.mark.parametrize("section", RFC_BLOCKS)
def test_the_rfc_examples_of_responses(section: str) -> None:
    decoder = ResponseDecoder(max_table_size=256)
    for block, (status, expected) in zip(RFC_BLOCKS[section], RFC_RESPONSES, strict=True):
        assert decoder.decode_block(bytes.fromhex(block))
        assert (decoder.status, decoder.fields, decoder.fault) == (status, expected, None)


@given(
    st.lists(st.tuples(st.lists(table_sizes, max_size=2), st.booleans(), st.booleans(), st.lists(fields, max_size=8)))
)
def test_we_read_what_hpack_writes(responses: list[tuple[list[int], bool, bool, list[Field]]]) -> None:
    server, decoder = hpack.Encoder(), ResponseDecoder()
    for sizes, huffman, trailers, expected in responses:
        for size in sizes:
            if size != server.header_table_size:  # or hpack forgets the change before it
                server.header_table_size = size
        block = server.encode([*[(b":status", b"207")][trailers:], *expected], huffman=huffman)
        assert decoder.decode_block(block, keep=True, trailers=trailers)
        assert (decoder.status, decoder.fields) == (0 if trailers else 207, expected)


@pytest.mark.parametrize(
    ("status", "keep", "kept"),
    [(100, False, False), (200, False, False), (300, False, True), (503, False, True), (201, True, True)],
)
def test_which_fields_are_kept(status: int, keep: bool, kept: bool) -> None:
    decoder = ResponseDecoder()
    block = literal(b":status", b"%d" % status) + literal(b"x-a", b"1") + literal(b"x-b", b"")
    assert decoder.decode_block(block, keep)
    assert decoder.status == status
    assert decoder.fields == ([(b"x-a", b"1"), (b"x-b", b"")] if kept else None)


def test_kept_but_there_are_none() -> None:
    decoder = ResponseDecoder()
    assert decoder.decode_block(b"\x88", keep=True)
    assert decoder.fields == []


def test_trailers_have_no_status_and_are_kept_on_request_only() -> None:
    decoder = ResponseDecoder()
    decoder.decode_block(b"\x8d")
    assert decoder.decode_block(literal(b"x-a", b"1"), keep=False, trailers=True)
    assert (decoder.status, decoder.fields) == (0, None)
    assert decoder.decode_block(literal(b"x-a", b"1"), keep=True, trailers=True)
    assert (decoder.status, decoder.fields) == (0, [(b"x-a", b"1")])
    assert decoder.decode_block(b"", trailers=True)


OK = literal(b":status", b"200")
STATUSES = (b"", b"20", b"2000", b"+20", b"2 0", b"099", b"101")
VALUES = (b"\0", b"a\r", b"\na", b"a\r\nx: y", b"a" * 99 + b"\0")
MALFORMED = {
    "nothing": b"",
    "no :status": literal(b"x-a", b"1"),
    "two :status": OK + OK,
    ":status after a field": literal(b"x-a", b"1") + OK,
    "a second :status after a field": OK + literal(b"x-a", b"1") + OK,
    "unknown pseudo": OK + literal(b":unknown", b"1"),
    "request pseudo": OK + b"\x84",
    "colon alone": OK + literal(b":", b"1"),
    "empty name": OK + literal(b"", b"1"),
    **{f"status {status!r}": literal(b":status", status) for status in STATUSES},
    **{
        f"name {name!r}": OK + literal(name, b"1")
        for name in (b"X", b"xX", b"x y", b"x\0", b"x:", b"x\x7f", b"x\x80", b"x\xff", b"x\t", b"x\r\n")
    },
    **{f"value {value!r}": OK + literal(b"x", value) for value in VALUES},
    **{
        f"{name!r}": OK + literal(name, b"1")
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
    },
}


@pytest.mark.parametrize("block", MALFORMED.values(), ids=MALFORMED)
def test_malformed_responses_leave_the_table_in_step(block: bytes) -> None:
    decoder = ResponseDecoder()
    assert not decoder.decode_block(block + literal(b"x-later", b"1", 0x40))
    assert decoder.fault
    assert (decoder.status, decoder.fields) == (0, None)
    assert decoder.decode_block(b"\x88\xbe")
    assert decoder.fields == [(b"x-later", b"1")]
    assert decoder.fault is None


@pytest.mark.parametrize("name", [b"X", b"connection", b":status"])
def test_a_malformed_field_is_malformed_again_when_it_comes_from_the_table(name: bytes) -> None:
    decoder = ResponseDecoder()
    block = OK + literal(name, b"1", 0x40)
    assert not decoder.decode_block(block)
    assert not decoder.decode_block(b"\x88\xbe")


def test_a_status_from_the_dynamic_table() -> None:
    decoder = ResponseDecoder()
    assert decoder.decode_block(literal(b":status", b"429", 0x40))
    assert decoder.decode_block(b"\xbe")
    assert decoder.status == 429


@pytest.mark.parametrize("block", [OK, b"\x84", literal(b"x-a", b"1") + literal(b":x", b"1")])
def test_trailers_hold_no_pseudo_header_fields(block: bytes) -> None:
    assert not ResponseDecoder().decode_block(block, trailers=True)


def test_blanks_round_a_value_are_let_pass() -> None:
    decoder = ResponseDecoder()
    assert decoder.decode_block(OK + literal(b"x", b" a\t"))
    assert decoder.fields == [(b"x", b" a\t")]


@pytest.mark.parametrize(
    "block",
    [
        "80",  # index 0
        "be",  # an empty dynamic table
        "ff00",  # index 127
        "ffffffffff7f",  # an index of 35 bits
        "ff808080808000",  # an integer of too many octets
        "ffffffffffffffffffffff",
        "ff",  # ends within the index
        "48",  # ends before the value
        "4803",  # ends within the value
        "480332",
        "00",
        "0001",
        "000178",
        "00ff",
        "7f00",  # a name that isn't there
        "0f7f",
        "88ff",
        "3fe21f",  # 4097 octets of table
        "3fffffffff0f",
        "3f",
        "88203fe11f",  # a size update after a field
        "8820",
        "0001788118",  # "a" is 5 bits, then padding of zeros
        "000178821fff",  # 11 bits of padding
        "00017884fffffffc",  # EOS, then zeros
        "00017884ffffffff",  # EOS, then ones
        "000178" + "81ff",  # padding alone, of 8 bits
        "000182ffff01",
    ],
)
def test_broken_hpack_is_a_compression_error(block: str) -> None:
    assert refusal(ResponseDecoder(), bytes.fromhex(block)) is ErrorCode.COMPRESSION_ERROR


def test_size_updates_at_the_start_of_a_block() -> None:
    decoder = ResponseDecoder()
    assert decoder.decode_block(literal(b"x-a", b"1", 0x40) + literal(b"x-b", b"2", 0x40), trailers=True)
    # One entry of 36 octets fits from now on: the newer one.
    assert decoder.decode_block(b"\x3f\x1e" + b"\x3f\x05" + b"\xbe", trailers=True) is True
    assert decoder.fields == [(b"x-b", b"2")]
    assert refusal(decoder, b"\x88\xbf") is ErrorCode.COMPRESSION_ERROR


def test_the_table_is_emptied_by_an_entry_that_is_too_large() -> None:
    decoder = ResponseDecoder()
    decoder.decode_block(OK + literal(b"x-a", b"1", 0x40))
    decoder.decode_block(b"\x3f\x01" + b"\x88")
    decoder.decode_block(b"\x3f\xe1\x1f" + OK + literal(b"x-a", b"1", 0x40))
    assert decoder.decode_block(OK + b"\x40\x01x\x7f\x81\x20" + b"v" * 4224)
    assert refusal(decoder, b"\x88\xbe") is ErrorCode.COMPRESSION_ERROR


def test_an_entry_named_after_the_one_that_it_evicts() -> None:
    decoder = ResponseDecoder(max_table_size=100)
    decoder.decode_block(literal(b"x-name-that-goes", b"v" * 40, 0x40), trailers=True)
    for value in (b"w" * 40, b"x" * 41, b"y" * 42):
        assert decoder.decode_block(b"\x7e" + bytes([len(value)]) + value, trailers=True)
        assert decoder.decode_block(b"\xbe", trailers=True)
        assert decoder.fields == [(b"x-name-that-goes", value)]


def test_an_entry_that_is_written_over_the_one_that_it_is_named_after() -> None:
    """The table begins again at its front, and what it evicts for a large entry lies where that comes to be."""
    encoder = hpack.Encoder()
    decoder = ResponseDecoder()
    name = b"x-" + b"n" * 28
    for field in [(b"x-a", b"1" * 2247), (b"x-b", b"2" * 2247), (name, b"3" * 10), (b"x-c", b"4" * 3697)]:
        assert decoder.decode_block(b"\x88" + encoder.encode([field], huffman=False))
    # The name is the second entry from the newest.
    value = b"v" * 900
    block = b"\x88\x7f\x00\x7f" + bytes([0x80 | (900 - 127) & 127, (900 - 127) >> 7]) + value
    assert decoder.decode_block(block)
    assert decoder.fields == [(name, value)]
    assert decoder.decode_block(b"\x88\xbe")
    assert decoder.fields == [(name, value)]


def test_a_field_list_may_have_its_limit_and_no_octet_more() -> None:
    limit = len(b":status" + b"200") + 32 + len(b"x" + b"12345") + 32
    decoder = ResponseDecoder(max_list_size=limit)
    assert decoder.decode_block(b"\x88" + literal(b"x", b"12345"))
    assert refusal(decoder, b"\x88" + literal(b"x", b"123456")) is ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "block",
    [
        b"\x88" + b"\xbe" * 20,  # an entry of 4,000 octets, again and again
        b"\x88\x00\x01x" + b"\xff\x81\xff\x03" + b"\x00" * 0x10000,  # 64 KiB that are 104,858 when decoded
        b"\x88\x00\x01x" + b"\x7f\x81\xff\x03" + b"0" * 0x10000,
        b"\x88" + b"\x90" * 3000,
    ],
)
def test_a_field_list_of_more_than_64_kib_is_refused(block: bytes) -> None:
    decoder = ResponseDecoder()
    decoder.decode_block(b"\x88" + b"\x40\x01x" + b"\x7f\xa1\x1e" + b"v" * 4000)
    assert refusal(decoder, block) is ErrorCode.ENHANCE_YOUR_CALM


@given(st.lists(st.binary(max_size=200), max_size=5), st.sampled_from([0, 40, 4096]), st.sampled_from([0, 100, 65536]))
def test_random_octets_raise_nothing_else(blocks: list[bytes], max_table_size: int, max_list_size: int) -> None:
    decoder = ResponseDecoder(max_table_size, max_list_size)
    with contextlib.suppress(ProtocolViolation):
        for block in blocks:
            decoder.decode_block(block)


def test_memory_does_not_grow() -> None:
    server, decoder = hpack.Encoder(), ResponseDecoder()
    blocks = [
        server.encode([(b":status", b"200"), (b"date", b"%d" % number), (b"x-%d" % number, b"v" * (number % 400))])
        for number in range(1000)
    ]
    tracemalloc.start()
    try:
        for block in blocks:
            assert decoder.decode_block(block, keep=False)
        assert tracemalloc.get_traced_memory()[1] < 4096
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sizes", [(-1, 65536), (4096, -1), (1 << 31, 65536), (4096, 1 << 31)])
def test_impossible_sizes_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="between 0 and"):
        ResponseDecoder(*sizes)


@pytest.mark.parametrize(
    ("values", "length"),
    [
        ((), -1),
        ((b"0",), 0),
        ((b"007",), 7),
        ((b"9" * 18,), 10**18 - 1),
        ((b"12", b"12"), 12),
        ((b"12", b"012"), 12),
        ((b" 12\t",), 12),
    ],
)
def test_content_length_of_a_response(values: tuple[bytes, ...], length: int) -> None:
    """Written out, and then by its index in the dynamic table."""
    decoder = ResponseDecoder()
    encoder = hpack.Encoder()
    for _ in range(2):
        block = encoder.encode([(b":status", b"200"), *((b"content-length", value) for value in values)])
        assert decoder.decode_block(block)
        assert decoder.content_length == length
    assert decoder.decode_block(encoder.encode([(b":status", b"200")]))
    assert decoder.content_length == -1
    assert decoder.decode_block(encoder.encode([(b"content-length", b"7")]), trailers=True)
    assert decoder.content_length == -1


@pytest.mark.parametrize(
    "values",
    [
        (b"",),
        (b" ",),
        (b"-1",),
        (b"+1",),
        (b"1.0",),
        (b"0x1",),
        (b"1 2",),
        (b"1, 1",),
        (b"9" * 19,),
        (b"1", b"2"),
        (b"0", b"1"),
        (b"2", b"x"),
    ],
)
def test_content_length_that_is_no_number(values: tuple[bytes, ...]) -> None:
    decoder = ResponseDecoder()
    encoder = hpack.Encoder()
    for _ in range(2):
        block = encoder.encode([(b":status", b"200"), *((b"content-length", value) for value in values)])
        assert not decoder.decode_block(block)
        assert "content-length" in str(decoder.fault)
        assert decoder.content_length == -1

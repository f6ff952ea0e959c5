"""Differential fuzzing of the HPACK encoder and decoder against the hpack package, both ways.

    python tests/fuzz/fuzz_hpack.py --seconds 60

Every case is a connection: the input is a seed, which leads to blocks in their order. There are three kinds: our
requests read by hpack; hpack's responses read by us; and blocks of random representations, some of them damaged, read
by both, whose results, errors and dynamic tables must agree.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import random
import sys

import hpack
from harness import main
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from fastpost._hpack_decoder import ResponseDecoder
from fastpost._hpack_encoder import RequestEncoder, encode_literals
from fastpost.errors import ErrorCode, ProtocolViolation

Field = tuple[bytes, bytes]

CREDENTIALS = (b"authorization", b"cookie", b"proxy-authorization", b"x-api-key", b"x-auth-token")
CONNECTION_FIELDS = (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
NAMES = (b"server", b"date", b"content-length", b"etag", b"location", b"vary", b"x-a", b"x-request-id", b"set-cookie")
NAME_OCTETS = bytes(octet for octet in range(0x21, 0x7F) if octet != 0x3A and not 0x41 <= octet <= 0x5A)
VALUE_OCTETS = bytes(octet for octet in range(256) if octet not in b"\0\r\n")
BAD_NAMES = (b"", b"X-Upper", b"a b", b"a:b", b"na\xefve", b":path", b":method", b":unknown", *CONNECTION_FIELDS)
BAD_VALUES = (b"a\0b", b"a\rb", b"a\nb", b"\n")
TABLE_SIZES = (0, 1, 31, 32, 33, 64, 100, 128, 256, 500, 1000, 2048, 4095, 4096)


class Mismatch(Exception):
    """The two sides disagree."""


class Chance(random.Random):
    """Random numbers. Half of the cases have no mishaps: they live long enough to turn their tables over many times."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.clumsy = self.random() < 0.5

    def mishap(self, probability: float) -> bool:
        """Say whether something goes wrong here that may end the connection."""
        return self.clumsy and self.random() < probability

    def blocks(self) -> range:
        """Return as many numbers as the case has blocks."""
        return range(self.randrange(2, 30) if self.clumsy else self.randrange(30, 120))


@dataclasses.dataclass
class Transcript:
    """What a case has done so far; the last line is the one that failed."""

    lines: list[str] = dataclasses.field(default_factory=list)

    def note(self, what: str, block: bytes = b"") -> None:
        """Add one line."""
        self.lines.append(f"{what} {block.hex()}")

    def require(self, holds: bool, message: str, *values: object) -> None:
        """Raise Mismatch unless the condition holds."""
        if not holds:
            raise Mismatch("\n".join([message, *map(repr, values), "blocks:", *self.lines]))


# --- what is generated ----------------------------------------------------------------------------


def octets(rng: Chance, alphabet: bytes, longest: int) -> bytes:
    """Return a string: mostly short, sometimes around the lengths where an integer grows by an octet."""
    length = rng.choice((rng.randrange(12), rng.randrange(60), rng.randrange(120, 135), rng.randrange(longest)))
    return bytes(rng.choices(alphabet, k=min(length, longest)))


def good_field(rng: Chance) -> Field:
    """Return a field that a response may hold; the same ones come again, so that tables are used."""
    name = rng.choice(NAMES) if rng.random() < 0.8 else b"x" + octets(rng, NAME_OCTETS, 200)
    if name == b"content-length":
        return name, b"%d" % rng.randrange(2)
    if rng.random() < 0.5:
        return name, b"value-%d" % rng.randrange(30)
    return name, octets(rng, rng.choice((VALUE_OCTETS, NAME_OCTETS)), 700)


def any_field(rng: Chance) -> Field:
    """Return a field, well-formed or not."""
    name, value = good_field(rng)
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(BAD_NAMES), value
    if kind < 0.2:
        return name, rng.choice(BAD_VALUES)
    if kind < 0.35:
        return b":status", rng.choice((b"200", b"100", b"503", b"101", b"099", b"20", b"2000", b"2x0", b""))
    return name, value


def integer(rng: Chance, flags: int, prefix_bits: int, value: int) -> bytes:
    """Return an integer, at times longer than needed, or too long."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([flags | value])
    value -= limit
    out = bytearray([flags | limit])
    while value >= 128:
        out.append(128 | value & 127)
        value >>= 7
    out.append(value)
    if rng.mishap(0.02):
        out[-1] |= 128
        out += b"\x80" * rng.randrange(5) + b"\0"
    return bytes(out)


def string(rng: Chance, text: bytes) -> bytes:
    """Return a string literal in either coding."""
    if rng.random() < 0.5:
        return integer(rng, 0, 7, len(text)) + text
    coded = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)
    if rng.mishap(0.02):
        coded += rng.choice((b"\xff", b"\xff\xff\xff\xfc", b"\xff\xff\xff\xff", b"\0", b"\xfe"))
    return integer(rng, 0x80, 7, len(coded)) + coded


def representation(rng: Chance, entries: int) -> bytes:
    """Return one field in any representation; entries is the length of the dynamic table, more or less."""
    index = rng.choice((rng.randrange(1, 62), rng.randrange(8, 15), 61 + rng.randrange(entries) if entries else 33))
    if rng.mishap(0.01):
        index = rng.choice((0, 61 + entries + 1, 10_000))
    if rng.random() < 0.35:
        return integer(rng, 0x80, 7, index)
    flags, prefix_bits = rng.choice(((0x40, 6), (0x40, 6), (0x10, 4), (0x00, 4)))
    name, value = any_field(rng)
    if rng.random() < 0.4:
        return integer(rng, flags, prefix_bits, index) + string(rng, value)
    return bytes([flags]) + string(rng, name) + string(rng, value)


def random_block(rng: Chance, entries: int) -> bytes:
    """Return a block of random representations, sometimes damaged, sometimes mere octets."""
    if rng.mishap(0.02):
        return rng.randbytes(rng.randrange(80))
    parts = [integer(rng, 0x20, 5, rng.choice(TABLE_SIZES)) for _ in range(2) if rng.mishap(0.1)]
    if rng.random() < 0.6:
        parts.append(bytes([0x80 | rng.randrange(8, 15)]))
    parts += [representation(rng, entries) for _ in range(rng.randrange(6))]
    if rng.mishap(0.01):
        parts.append(integer(rng, 0x20, 5, rng.choice((0, 100, 4097))))
    block = bytearray(b"".join(parts))
    if block and rng.mishap(0.03):
        block[rng.randrange(len(block))] ^= 1 << rng.randrange(8)
    if block and rng.mishap(0.02):
        del block[rng.randrange(len(block)) :]
    return bytes(block)


# --- what must hold -------------------------------------------------------------------------------


def well_formed(fields: list[Field], trailers: bool) -> bool:
    """Say whether RFC 9113 §8.2 and §8.3 allow these fields in a response (blanks round values are let pass)."""
    pseudo = [field for field in fields if field[0].startswith(b":")]
    regular = [field for field in fields if not field[0].startswith(b":")]
    if fields != pseudo + regular or len(pseudo) != (0 if trailers else 1):
        return False
    if any(name != b":status" or not status_exists(value) for name, value in pseudo):
        return False
    lengths = [value.strip(b" \t") for name, value in regular if name == b"content-length"]
    if not all(length.isdigit() and len(length) <= 18 for length in lengths):
        return False
    if not trailers and len(set(map(int, lengths))) > 1:
        return False
    return all(
        name and set(name) <= set(NAME_OCTETS) and name not in CONNECTION_FIELDS and not set(value) & {0, 10, 13}
        for name, value in regular
    )


def status_exists(value: bytes) -> bool:
    """Say whether :status may have this value."""
    return len(value) == 3 and value.isdigit() and value[0] != 0x30 and value != b"101"


def plain(fields: collections.abc.Iterable[tuple[bytes | str, bytes | str]]) -> list[Field]:
    """Return what hpack decoded as plain tuples."""
    return [(bytes(name), bytes(value)) for name, value in fields]  # type: ignore[arg-type]


def check_response(transcript: Transcript, ours: ResponseDecoder, block: bytes, theirs: list[Field],
                   keep: bool, trailers: bool) -> None:  # fmt: skip
    """Decode a block, of which hpack made these fields, and compare."""
    good = ours.decode_block(block, keep, trailers)
    transcript.require(good == well_formed(theirs, trailers), "well-formed or not", good, ours.fault, theirs)
    transcript.require(good == (ours.fault is None), "fault", ours.fault, theirs)
    status = int(theirs[0][1]) if good and not trailers else 0
    transcript.require(ours.status == status, "status", ours.status, theirs)
    kept = good and (keep or status >= 300)
    expected = [field for field in theirs if not field[0].startswith(b":")] if kept else None
    transcript.require(ours.fields == expected, "fields", ours.fields, expected)


def fuzz_requests(rng: Chance, transcript: Transcript) -> None:
    """Our encoder, hpack's decoder."""
    method = rng.choice((b"PUT", b"POST", b"GET", octets(rng, NAME_OCTETS, 20)))
    scheme, authority = rng.choice((b"http", b"https")), octets(rng, NAME_OCTETS, 300)
    constants = [good_field(rng) for _ in range(rng.choice((0, 1, 3, 20)))]
    constants += [(name, b"secret") for name in CREDENTIALS if rng.random() < 0.3]
    rng.shuffle(constants)
    encoder = RequestEncoder(method, scheme, authority, constants)
    decoder = hpack.Decoder(max_header_list_size=1 << 24)
    for number in range(rng.randrange(2, 12)):
        for _ in range(rng.choice((0, 0, 1, 2)) if number else rng.choice((0, 0, 1))):
            decoder.max_allowed_table_size = rng.choice((*TABLE_SIZES, 65536, 2**32 - 1))
            transcript.note(f"table size {decoder.max_allowed_table_size}")
            encoder.set_table_size(decoder.max_allowed_table_size)
        path = b"/" + octets(rng, VALUE_OCTETS, 40_000)
        length = rng.choice((-1, 0, 9, 10, 2**63 - 1, rng.getrandbits(40)))
        literals = [good_field(rng) for _ in range(rng.randrange(3))]
        block = encoder.encode(path, length, encode_literals(literals))
        transcript.note("request", block)
        expected = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)]
        expected += [*constants, *[(b"content-length", b"%d" % length)] * (length >= 0), *literals]
        decoded = plain(decoder.decode(block, raw=True))
        transcript.require(decoded == expected, "request", decoded, expected)
        held = decoder.header_table.dynamic_entries
        transcript.require(len(held) == len(set(held)), "held twice", held)
        transcript.require(not {name for name, _ in held} & {*CREDENTIALS, b":path"}, "must not be held", held)


def fuzz_responses(rng: Chance, transcript: Transcript) -> None:
    """The encoder of hpack, our decoder."""
    encoder, decoder = hpack.Encoder(), ResponseDecoder()
    for _ in rng.blocks():
        for _ in range(2 if rng.mishap(0.2) else 0):
            # hpack forgets to signal a change when the same size is set once more.
            encoder.header_table_size = rng.choice([size for size in TABLE_SIZES if size != encoder.header_table_size])
        trailers = rng.random() < 0.2
        fields = [] if trailers else [(b":status", b"%d" % rng.choice((100, 200, 201, 204, 404, 500, 599)))]
        fields += [good_field(rng) for _ in range(rng.randrange(8))]
        sensitive = [(*field, rng.random() < 0.2) for field in fields]
        block = encoder.encode(sensitive, huffman=rng.random() < 0.5)
        transcript.note("response", block)
        check_response(transcript, decoder, block, fields, rng.random() < 0.7, trailers)


def fuzz_representations(rng: Chance, transcript: Transcript) -> None:
    """Random representations, both decoders; their tables are compared entry by entry."""
    max_table_size = rng.choice((4096, 4096, 65536, *TABLE_SIZES))
    max_list_size = 700 if rng.mishap(0.3) else 65536
    transcript.note(f"table of {max_table_size} octets, lists of {max_list_size}")
    ours = ResponseDecoder(max_table_size, max_list_size)
    theirs = hpack.Decoder(max_list_size)
    theirs.max_allowed_table_size = max_table_size
    theirs.header_table_size = min(4096, max_table_size)
    for _ in rng.blocks():
        block = random_block(rng, len(theirs.header_table.dynamic_entries))
        trailers = rng.random() < 0.5
        transcript.note("trailers" if trailers else "block", block)
        try:
            expected = plain(theirs.decode(block, raw=True))
        except hpack.HPACKError as error:
            check_refused(transcript, ours, block, error)
            return
        check_response(transcript, ours, block, expected, rng.random() < 0.7, trailers)
        for place, field in enumerate(theirs.header_table.dynamic_entries):
            entry = hpack.hpack.encode_integer(62 + place, 7)
            entry[0] |= 0x80
            check_response(transcript, ours, bytes(entry), plain([field]), True, not field[0].startswith(b":"))
    check_refused(transcript, ours, b"\xff\x80\x01", None)


def check_refused(transcript: Transcript, ours: ResponseDecoder, block: bytes, reason: Exception | None) -> None:
    """Require a connection error where hpack has one. We may find a list too long within a field, hpack after it."""
    codes = {ErrorCode.ENHANCE_YOUR_CALM}
    if not isinstance(reason, hpack.OversizedHeaderListError):
        codes.add(ErrorCode.COMPRESSION_ERROR)
    try:
        ours.decode_block(block)
    except ProtocolViolation as error:
        transcript.require(error.error_code in codes, "error code", error, reason)
        return
    transcript.require(False, "not refused", block.hex(), reason)


KINDS = (fuzz_requests, fuzz_responses, fuzz_representations)


def run_case(seed: int) -> None:
    """Run the case of a seed. Raises Mismatch."""
    transcript = Transcript()
    rng = Chance(seed)
    try:
        KINDS[seed % len(KINDS)](rng, transcript)
    except (hpack.HPACKError, ProtocolViolation) as error:
        transcript.require(False, "refused by one side only", error)


def make(rng: random.Random) -> bytes:
    """Draw the seed of a case."""
    return b"%d" % rng.getrandbits(40)


def check(octets: bytes) -> int:
    """Run the case of a seed; its outcome is its kind: they are compared, and agree or not."""
    run_case(int(octets))
    return int(octets) % len(KINDS)


if __name__ == "__main__":
    sys.exit(main("hpack", make, check, mutated=False))

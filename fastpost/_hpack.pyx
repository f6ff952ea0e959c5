# cython: language_level=3
# No directive switches checks off: the hot code indexes C pointers only, which Cython never checks. Their limits are
# checked by hand, below. What is left of Python here runs once a run, or once for a response that is kept.
"""HPACK (RFC 7541): request blocks from a template, response blocks into a status and, if kept, fields."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from fastpost.errors import ErrorCode, ProtocolViolation

# --- the static table (RFC 7541 appendix A) ------------------------------------------------------

cdef tuple _STATIC_TABLE = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)

cdef enum:
    STATIC_LENGTH = 61
    PATH_INDEX = 4
    CONTENT_LENGTH_INDEX = 28
    ENTRY_OVERHEAD = 32             # RFC 7541 §4.1
    DEFAULT_TABLE_SIZE = 4096       # RFC 9113 §6.5.2

    # First octets of the representations (RFC 7541 §6), and the flag of a Huffman-coded string (§5.2).
    INDEXED = 0x80
    INCREMENTAL = 0x40
    SIZE_UPDATE = 0x20
    NEVER_INDEXED = 0x10
    NOT_INDEXED = 0x00
    HUFFMAN = 0x80

cdef dict _STATIC_FIELDS = {field: index for index, field in reversed(tuple(enumerate(_STATIC_TABLE, 1)))}
cdef dict _STATIC_NAMES = {field[0]: index for index, field in reversed(tuple(enumerate(_STATIC_TABLE, 1)))}

# Fields that no table may hold, lest another's guesses be confirmed by their length (RFC 7541 §7.1.3).
cdef frozenset _CREDENTIALS = frozenset(
    {b"authorization", b"cookie", b"proxy-authorization", b"x-api-key", b"x-auth-token"}
)

# --- the Huffman code (RFC 7541 appendix B) ------------------------------------------------------

# The code is canonical: codes are consecutive numbers, by length and then by symbol. So the symbols of each length
# are all its data; both directions are made from them at import. EOS (256) follows the last one, with 30 bits.
cdef dict _SYMBOLS_BY_WIDTH = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
    20: b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2",
    21: b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6",
    22: b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9",
    23: b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf"
        b"\xc5\xe7\xef",
    24: b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed",
    25: b"\xc7\xcf\xea\xeb",
    26: b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff",
    27: b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    28: b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"
        b"\x7f\xdc\xf9",
    30: b"\n\r\x16",
}

cdef enum:
    EOS = 256
    SHORT_BITS = 10     # one lookup decodes the codes up to this width: every symbol that is usual in fields
    MAX_WIDTH = 30

# By symbol, to encode.
cdef uint32_t CODES[257]
cdef uint8_t WIDTHS[257]
# To decode: the first SHORT_BITS bits → width << 8 | symbol, or 0 when the code is longer.
cdef uint16_t SHORT_CODES[1 << SHORT_BITS]
# Longer codes, by width: the first code of a greater width, aligned left to 32 bits; the symbols in the order of
# their codes, and what to add to a code of that width to have its place there.
cdef uint64_t CODE_LIMITS[MAX_WIDTH + 1]
cdef int64_t CODE_PLACES[MAX_WIDTH + 1]
cdef uint16_t SYMBOLS[257]


cdef int _build_huffman() except -1:
    cdef uint32_t code = 0
    cdef int width, place = 0, symbol, filler
    for width in range(1, MAX_WIDTH + 1):
        code <<= 1
        CODE_PLACES[width] = place - <int64_t>code
        symbols = list(_SYMBOLS_BY_WIDTH.get(width, b"")) + ([EOS] if width == MAX_WIDTH else [])
        for symbol in symbols:
            CODES[symbol] = code
            WIDTHS[symbol] = width
            SYMBOLS[place] = symbol
            if width <= SHORT_BITS:
                for filler in range(1 << (SHORT_BITS - width)):
                    SHORT_CODES[(code << (SHORT_BITS - width)) + filler] = width << 8 | symbol
            code += 1
            place += 1
        CODE_LIMITS[width] = <uint64_t>code << (32 - width)
    return 0


# --- what can be wrong with a block --------------------------------------------------------------

# Connection errors: decoding can't go on.
cdef enum:
    FINE = 0
    TRUNCATED
    LONG_INTEGER
    NO_SUCH_INDEX
    BAD_PADDING
    EOS_IN_STRING
    LATE_SIZE_UPDATE
    LARGE_SIZE_UPDATE
    LONG_LIST

cdef tuple _FAILURES = (
    "",
    "a header block ends within a field",
    "a header block holds an integer of too many octets",
    "a header block refers to a table entry that does not exist",
    "a Huffman-coded string in a header block is not padded as it must be",
    "a Huffman-coded string in a header block holds the end-of-string symbol",
    "a header block changes the size of the dynamic table after its first field",
    "a header block sets the dynamic table larger than was offered",
    "the fields of a response are larger than allowed",
)

# Verdicts on one field: 0 is a regular one, 1 a content-length, 100 … 999 is the :status of that value, a negative one
# is malformed (RFC 9113 §8.1.1: a stream error) and counts into _FAULTS.
cdef enum:
    REGULAR = 0
    CONTENT_LENGTH = 1
    BAD_NAME = -1
    BAD_VALUE = -2
    BAD_STATUS = -3
    UNKNOWN_PSEUDO = -4
    CONNECTION_FIELD = -5
    LATE_PSEUDO = -6
    SECOND_STATUS = -7
    PSEUDO_IN_TRAILERS = -8
    NO_STATUS = -9
    BAD_LENGTH = -10
    SECOND_LENGTH = -11

cdef tuple _FAULTS = (
    "",
    "a field name holds a character that it may not hold",
    "a field value holds NUL, CR or LF",
    ":status is not a number that HTTP/2 has",
    "an unknown pseudo-header field",
    "a connection-specific field",
    "a pseudo-header field after a regular field",
    "more than one :status",
    "a pseudo-header field in the trailers",
    "no :status",
    "content-length is not a number",
    "more than one content-length",
)

# A name or value points into the block, the static table, a dynamic table or the scratch octets.
cdef struct Field:
    const uint8_t* name
    const uint8_t* value
    Py_ssize_t name_length
    Py_ssize_t value_length
    int verdict

# The unread part of a block, and the unused scratch octets: room for what is Huffman-coded or about to be moved.
cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end
    uint8_t* scratch
    uint8_t* scratch_end

cdef Field STATIC_FIELDS[STATIC_LENGTH + 1]
cdef uint8_t NAME_OCTETS[256]       # 1: a field name may hold it (RFC 9113 §8.2.1)


cdef int _build_static() except -1:
    cdef int octet, index
    for octet in range(256):
        NAME_OCTETS[octet] = 0x20 < octet < 0x7F and octet != c":" and not c"A" <= octet <= c"Z"
    for index in range(1, STATIC_LENGTH + 1):
        name, value = _STATIC_TABLE[index - 1]
        STATIC_FIELDS[index].name = <const uint8_t*>PyBytes_AS_STRING(name)
        STATIC_FIELDS[index].value = <const uint8_t*>PyBytes_AS_STRING(value)
        STATIC_FIELDS[index].name_length = len(name)
        STATIC_FIELDS[index].value_length = len(value)
        STATIC_FIELDS[index].verdict = judge(&STATIC_FIELDS[index])
    return 0


cdef int judge_name(const uint8_t* name, Py_ssize_t length) noexcept nogil:
    """Judge the name of a regular field (RFC 9113 §8.2.1, §8.2.2)."""
    cdef Py_ssize_t i
    for i in range(length):
        if not NAME_OCTETS[name[i]]:
            return BAD_NAME
    if (
        (length == 7 and memcmp(name, b"upgrade", 7) == 0)
        or (length == 10 and (memcmp(name, b"connection", 10) == 0 or memcmp(name, b"keep-alive", 10) == 0))
        or (length == 16 and memcmp(name, b"proxy-connection", 16) == 0)
        or (length == 17 and memcmp(name, b"transfer-encoding", 17) == 0)
    ):
        return CONNECTION_FIELD
    return REGULAR if length else BAD_NAME


cdef int judge_status(const uint8_t* value, Py_ssize_t length) noexcept nogil:
    """Return the number of a :status, or BAD_STATUS. 101 does not exist in HTTP/2 (RFC 9113 §8.6)."""
    cdef int status = 0
    cdef Py_ssize_t i
    if length != 3:
        return BAD_STATUS
    for i in range(3):
        if not c"0" <= value[i] <= c"9":
            return BAD_STATUS
        status = 10 * status + value[i] - c"0"
    return status if status >= 100 and status != 101 else BAD_STATUS


cdef int64_t read_length(const uint8_t* value, Py_ssize_t length) noexcept nogil:
    """Return the number of a content-length (RFC 9110 §8.6); −1: it is none, or has more than 18 digits."""
    cdef int64_t octets = 0
    cdef Py_ssize_t i
    while length and (value[0] == c" " or value[0] == c"\t"):
        value += 1
        length -= 1
    while length and (value[length - 1] == c" " or value[length - 1] == c"\t"):
        length -= 1
    if not 0 < length <= 18:
        return -1
    for i in range(length):
        if not c"0" <= value[i] <= c"9":
            return -1
        octets = 10 * octets + value[i] - c"0"
    return octets


cdef int judge(const Field* field) noexcept nogil:
    """Return the verdict on a field by itself; its place in the block is judged by the decoder."""
    cdef Py_ssize_t i
    cdef int verdict
    if field.name_length and field.name[0] == c":":
        if field.name_length == 7 and memcmp(field.name, b":status", 7) == 0:
            return judge_status(field.value, field.value_length)
        return UNKNOWN_PSEUDO
    verdict = judge_name(field.name, field.name_length)
    if verdict != REGULAR:
        return verdict
    # Blanks round a value are let pass, though RFC 9113 §8.2.1 forbids them: nothing is forwarded from here, so they do
    # no harm, and an upload that the server has stored should not fail for a blank.
    for i in range(field.value_length):
        if field.value[i] <= c"\r" and (field.value[i] == c"\r" or field.value[i] == c"\n" or field.value[i] == 0):
            return BAD_VALUE
    if field.name_length == 14 and memcmp(field.name, b"content-length", 14) == 0:
        return CONTENT_LENGTH if read_length(field.value, field.value_length) >= 0 else BAD_LENGTH
    return REGULAR


_build_huffman()
_build_static()


# --- the dynamic table ---------------------------------------------------------------------------


cdef Entry* table_entry(Table* table, Py_ssize_t age) noexcept nogil:
    """Return an entry by its age, the newest being 0; the caller has checked that it is there."""
    return &table.entries[(table.oldest + table.count - 1 - age) & table.mask]


cdef void table_shrink(Table* table, Py_ssize_t limit) noexcept nogil:
    """Evict the oldest entries until the table's size is within the limit."""
    cdef Entry* entry
    while table.size > limit and table.count:
        entry = &table.entries[table.oldest]
        table.size -= ENTRY_OVERHEAD + entry.name_length + entry.value_length
        table.oldest = (table.oldest + 1) & table.mask
        table.count -= 1


cdef void table_insert(Table* table, const Field* field) noexcept nogil:
    """Insert a copy of a field, whose octets are outside of the table; what is too large empties it (RFC 7541 §4.4)."""
    cdef Py_ssize_t length = field.name_length + field.value_length
    cdef Entry* entry
    table_shrink(table, max(<Py_ssize_t>0, table.capacity - ENTRY_OVERHEAD - length))
    if length + ENTRY_OVERHEAD > table.capacity:
        return
    if table.tail + length > table.arena:
        # Start again at the front. What lives then lies in the last half of the arena, and is evicted before it is
        # reached: live octets and those written since are never more than the capacity, half of the arena.
        table.tail = 0
    entry = &table.entries[(table.oldest + table.count) & table.mask]
    entry.offset = table.tail
    entry.name_length = <uint32_t>field.name_length
    entry.value_length = <uint32_t>field.value_length
    entry.verdict = field.verdict
    memcpy(table.octets + table.tail, field.name, field.name_length)
    memcpy(table.octets + table.tail + field.name_length, field.value, field.value_length)
    table.tail += length
    table.size += length + ENTRY_OVERHEAD
    table.count += 1


cdef int table_field(Table* table, uint64_t index, Field* field) noexcept nogil:
    """Find a field by its index in the joint address space (RFC 7541 §2.3.3). It points into the table."""
    cdef Entry* entry
    if index == 0 or index > <uint64_t>(STATIC_LENGTH + table.count):
        return NO_SUCH_INDEX
    if index <= STATIC_LENGTH:
        field[0] = STATIC_FIELDS[index]
        return FINE
    entry = table_entry(table, <Py_ssize_t>index - STATIC_LENGTH - 1)
    field.name = table.octets + entry.offset
    field.name_length = entry.name_length
    field.value = field.name + entry.name_length
    field.value_length = entry.value_length
    field.verdict = entry.verdict
    return FINE


# --- integers and strings (RFC 7541 §5) ----------------------------------------------------------


cdef uint8_t* put_integer(uint8_t* out, uint8_t flags, int prefix_bits, uint64_t value) noexcept nogil:
    """Write an integer below flags. At most 11 octets. Returns where it ends."""
    cdef uint64_t limit = (1 << prefix_bits) - 1
    if value < limit:
        out[0] = flags | <uint8_t>value
        return out + 1
    out[0] = flags | <uint8_t>limit
    out += 1
    value -= limit
    while value >= 128:
        out[0] = 128 | <uint8_t>(value & 127)
        out += 1
        value >>= 7
    out[0] = <uint8_t>value
    return out + 1


cdef int get_integer(Cursor* cursor, int prefix_bits, uint64_t* value) noexcept nogil:
    """Read an integer of at most 5 octets after its prefix, which is more than 32 bits and can't overflow 64."""
    cdef uint64_t limit = (1 << prefix_bits) - 1
    cdef int shift = 0
    cdef uint8_t octet
    if cursor.at == cursor.end:
        return TRUNCATED
    value[0] = cursor.at[0] & limit
    cursor.at += 1
    if value[0] < limit:
        return FINE
    while True:
        if cursor.at == cursor.end:
            return TRUNCATED
        octet = cursor.at[0]
        cursor.at += 1
        value[0] += <uint64_t>(octet & 127) << shift
        if octet < 128:
            return FINE
        shift += 7
        if shift > 28:
            return LONG_INTEGER


cdef int get_string(Cursor* cursor, const uint8_t** octets, Py_ssize_t* length) noexcept nogil:
    """Read a string. It points into the block, or into the scratch octets when it was Huffman-coded."""
    cdef uint64_t coded
    cdef bint huffman
    cdef int failure
    if cursor.at == cursor.end:
        return TRUNCATED
    huffman = cursor.at[0] & HUFFMAN
    failure = get_integer(cursor, 7, &coded)
    if failure:
        return failure
    if coded > <uint64_t>(cursor.end - cursor.at):
        return TRUNCATED
    octets[0] = cursor.at
    length[0] = <Py_ssize_t>coded
    cursor.at += coded
    if huffman:
        octets[0] = cursor.scratch
        failure = huffman_decode(cursor, cursor.at - coded, cursor.at)
        length[0] = cursor.scratch - octets[0]
    return failure


cdef int huffman_decode(Cursor* cursor, const uint8_t* source, const uint8_t* end) noexcept nogil:
    """Decode a string into the scratch octets (RFC 7541 §5.2)."""
    cdef uint64_t bits = 0          # the next bits, aligned left, and zeros after the valid ones
    cdef int valid = 0, width, symbol
    while True:
        if valid < MAX_WIDTH:
            while valid <= 56 and source < end:
                bits |= <uint64_t>source[0] << (56 - valid)
                source += 1
                valid += 8
        width = SHORT_CODES[bits >> (64 - SHORT_BITS)]
        if width:
            symbol = width & 0xFF
            width >>= 8
        else:
            width = SHORT_BITS + 1
            while bits >> 32 >= CODE_LIMITS[width]:
                width += 1
            symbol = SYMBOLS[<int64_t>(bits >> (64 - width)) + CODE_PLACES[width]]
        if width > valid:
            break
        if symbol == EOS:
            return EOS_IN_STRING
        if cursor.scratch == cursor.scratch_end:
            return LONG_LIST
        cursor.scratch[0] = <uint8_t>symbol
        cursor.scratch += 1
        bits <<= width
        valid -= width
    # What is left of the last octet is the start of EOS, which is all ones: shorter than an octet.
    if valid > 7 or bits != <uint64_t>(0xFF00 >> valid & 0xFF) << 56:
        return BAD_PADDING
    return FINE


cdef Py_ssize_t huffman_length(const uint8_t* octets, Py_ssize_t length) noexcept nogil:
    """Return the octets that a string takes when it is Huffman-coded."""
    cdef Py_ssize_t i, bits = 0
    for i in range(length):
        bits += WIDTHS[octets[i]]
    return (bits + 7) >> 3


cdef void huffman_encode(uint8_t* out, const uint8_t* octets, Py_ssize_t length) noexcept nogil:
    """Write a Huffman-coded string of huffman_length() octets."""
    cdef uint64_t bits = 0          # the unwritten bits, aligned right: at most 7 before a code is added
    cdef int valid = 0
    cdef Py_ssize_t i
    for i in range(length):
        bits = bits << WIDTHS[octets[i]] | CODES[octets[i]]
        valid += WIDTHS[octets[i]]
        while valid >= 8:
            valid -= 8
            out[0] = <uint8_t>(bits >> valid)
            out += 1
    if valid:
        out[0] = <uint8_t>(bits << (8 - valid) | 0xFF >> valid)


# --- representations, built once a run -----------------------------------------------------------


cdef bytes _integer(uint8_t flags, int prefix_bits, uint64_t value):
    cdef uint8_t octets[11]
    cdef uint8_t* end = put_integer(octets, flags, prefix_bits, value)
    return PyBytes_FromStringAndSize(<char*>octets, end - octets)


cdef bytes _string(bytes string):
    """Return a string literal, Huffman-coded when that is shorter."""
    cdef const uint8_t* octets = <const uint8_t*>PyBytes_AS_STRING(string)
    cdef Py_ssize_t coded_length = huffman_length(octets, len(string))
    cdef bytes coded
    if coded_length >= len(string):
        return _integer(0, 7, len(string)) + string
    coded = PyBytes_FromStringAndSize(NULL, coded_length)
    huffman_encode(<uint8_t*>PyBytes_AS_STRING(coded), octets, len(string))
    return _integer(HUFFMAN, 7, coded_length) + coded


cdef bytes _literal(tuple field, uint8_t flags):
    """Return a literal representation (RFC 7541 §6.2), with the static table's index of the name if it has one."""
    name, value = field
    index = _STATIC_NAMES.get(name, 0)
    representation = _integer(flags, 6 if flags == INCREMENTAL else 4, index)
    return representation + (b"" if index else _string(name)) + _string(value)


cdef tuple _lowercase(fields):
    return tuple([(name.lower(), value) for name, value in fields])


def encode_literals(fields):
    """Return fields as literals without indexing (RFC 7541 §6.2.2); credentials as never-indexed ones (§6.2.3).

    Strings are Huffman-coded where that is shorter: callers keep the result for many requests.

    Args:
        fields: name and value pairs, already valid as fields; names are sent in lower case.
    """
    return b"".join(
        [_literal(field, NEVER_INDEXED if field[0] in _CREDENTIALS else NOT_INDEXED) for field in _lowercase(fields)]
    )


# --- requests ------------------------------------------------------------------------------------


cdef class RequestEncoder:
    """The header blocks of one connection's requests: they differ in :path, content-length and a few literals.

    The other fields go into the peer's dynamic table once, with the first block, and are one octet each from then on.
    Nothing is inserted after that, and nothing is ever evicted, so a block is: constant octets, :path, constant
    octets, content-length, literals. Constant values are Huffman-coded where that is shorter; :path and content-length
    are not, which costs a few octets and saves both sides a pass over them.

    Blocks must be sent in the order in which they were made, and every one of them.

    Args:
        method: the :method, for instance b"PUT".
        scheme: b"http" or b"https".
        authority: the host and port of the target.
        fields: the same in every request; name and value pairs, already valid as fields.

    Attributes:
        table_size: the octets of the peer's dynamic table in use, as last set (RFC 7541 §4.1 says how they count).
    """

    def __cinit__(self, bytes method not None, bytes scheme not None, bytes authority not None, fields=()):
        self._pseudo_fields = ((b":method", method), (b":scheme", scheme), (b":authority", authority))
        self._regular_fields = _lowercase(fields)
        self.table_size = DEFAULT_TABLE_SIZE
        self._prime(False)

    def set_table_size(self, uint32_t limit):
        """Take the peer's SETTINGS_HEADER_TABLE_SIZE (RFC 9113 §6.5.2), in octets; at most 4096 are used.

        After a change the next block empties the table, sets its size and fills it again. To pass through 0 also
        signals the least of several changes between two blocks, as RFC 7541 §4.2 demands.
        """
        cdef Py_ssize_t size = min(limit, <uint32_t>DEFAULT_TABLE_SIZE)
        if size != self.table_size:
            self.table_size = size
            self._prime(True)

    cdef int _prime(self, bint update) except -1:
        """Lay out the first block, which fills the table, and all later ones."""
        cdef tuple fields = self._pseudo_fields + self._regular_fields
        cdef dict places = _places(fields, self.table_size)
        cdef list priming = _representations(fields, places, 0)
        cdef list steady = _representations(fields, places, len(places))
        if update:
            priming.insert(0, _size_update(self.table_size))
        cdef Py_ssize_t pseudo = len(self._pseudo_fields)
        self._priming_octets = b"".join(priming)
        self._steady_octets = b"".join(steady)
        self._priming.octets = <const uint8_t*>PyBytes_AS_STRING(self._priming_octets)
        self._priming.length = len(self._priming_octets)
        self._priming.head = len(b"".join(priming[:pseudo + update]))
        self._steady.octets = <const uint8_t*>PyBytes_AS_STRING(self._steady_octets)
        self._steady.length = len(self._steady_octets)
        self._steady.head = len(b"".join(steady[:pseudo]))
        self._primed = False
        return 0

    def encode(self, bytes path not None, int64_t content_length, bytes literals not None = b""):
        """Return the header block of one request.

        Args:
            path: the :path, sent as it is.
            content_length: in octets; a negative one leaves the field out.
            literals: what encode_literals() returned for the fields of this request.
        """
        cdef bytes block = PyBytes_FromStringAndSize(NULL, self.bound(len(path), len(literals)))
        cdef Py_ssize_t length = self.write(
            <uint8_t*>PyBytes_AS_STRING(block), <const uint8_t*>PyBytes_AS_STRING(path), len(path), content_length,
            <const uint8_t*>PyBytes_AS_STRING(literals), len(literals),
        )
        return block[:length]

    cdef Py_ssize_t bound(self, Py_ssize_t path_length, Py_ssize_t literals_length) noexcept nogil:
        # :path is its index, a length of at most 10 octets and itself; content-length its index (2), a length (1) and
        # at most 19 digits.
        return max(self._priming.length, self._steady.length) + 11 + path_length + 22 + literals_length

    cdef Py_ssize_t write(
        self, uint8_t* out, const uint8_t* path, Py_ssize_t path_length, int64_t content_length,
        const uint8_t* literals, Py_ssize_t literals_length,
    ) noexcept nogil:
        cdef const Template* template = &self._steady if self._primed else &self._priming
        cdef uint8_t* at = out
        self._primed = True
        memcpy(at, template.octets, template.head)
        at = put_integer(at + template.head, NOT_INDEXED, 4, PATH_INDEX)
        at = put_integer(at, 0, 7, path_length)
        memcpy(at, path, path_length)
        at += path_length
        memcpy(at, template.octets + template.head, template.length - template.head)
        at += template.length - template.head
        if content_length >= 0:
            at = put_integer(at, NOT_INDEXED, 4, CONTENT_LENGTH_INDEX)
            at = put_decimal(at, content_length)
        if literals_length:     # the caller's pointer may be NULL without any
            memcpy(at, literals, literals_length)
        return at + literals_length - out


cdef uint8_t* put_decimal(uint8_t* out, uint64_t value) noexcept nogil:
    """Write a number as a string literal of its digits. Returns where it ends."""
    cdef uint8_t digits[20]
    cdef int first = 20
    while True:
        first -= 1
        digits[first] = <uint8_t>(c"0" + value % 10)
        value //= 10
        if value == 0:
            break
    out[0] = 20 - first
    memcpy(out + 1, digits + first, 20 - first)
    return out + 1 + 20 - first


cdef dict _places(tuple fields, Py_ssize_t table_size):
    """Return which fields go into the dynamic table, and as the how-manieth; those that fit without an eviction."""
    cdef dict places = {}
    for field in fields:
        size = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        if field not in places and field not in _STATIC_FIELDS and field[0] not in _CREDENTIALS and size <= table_size:
            places[field] = len(places)
            table_size -= size
    return places


cdef bytes _size_update(Py_ssize_t table_size):
    """Return dynamic table size updates (RFC 7541 §6.3): empty it, then the new size."""
    return _integer(SIZE_UPDATE, 5, 0) + (_integer(SIZE_UPDATE, 5, table_size) if table_size else b"")


cdef list _representations(tuple fields, dict places, Py_ssize_t inserted):
    """Return each field's representation, for a block that begins with so many of the places taken."""
    cdef list representations = []
    for field in fields:
        if field[0] in _CREDENTIALS:
            representations.append(_literal(field, NEVER_INDEXED))
        elif field in _STATIC_FIELDS:
            representations.append(_integer(INDEXED, 7, _STATIC_FIELDS[field]))
        elif field not in places:
            representations.append(_literal(field, NOT_INDEXED))
        elif places[field] < inserted:
            representations.append(_integer(INDEXED, 7, STATIC_LENGTH + inserted - places[field]))
        else:
            representations.append(_literal(field, INCREMENTAL))
            inserted += 1
    return representations


# --- responses -----------------------------------------------------------------------------------


cdef int read_field(Cursor* cursor, Table* table, Field* field) noexcept nogil:
    """Read one field in any representation (RFC 7541 §6.1, §6.2), and insert it if that is asked."""
    cdef uint8_t first = cursor.at[0]
    cdef bint incremental = not first & INDEXED and first & INCREMENTAL
    cdef uint64_t index
    cdef int failure = get_integer(cursor, 7 if first & INDEXED else 6 if incremental else 4, &index)
    if failure:
        return failure
    if first & INDEXED:
        return table_field(table, index, field)
    if index == 0:
        failure = get_string(cursor, &field.name, &field.name_length)
    else:
        failure = table_field(table, index, field)
        if index > STATIC_LENGTH and incremental and not failure:
            failure = detach_name(cursor, field)
    if failure:
        return failure
    failure = get_string(cursor, &field.value, &field.value_length)
    if failure:
        return failure
    field.verdict = judge(field)
    if incremental:
        table_insert(table, field)
    return FINE


cdef int detach_name(Cursor* cursor, Field* field) noexcept nogil:
    """Copy a name out of the dynamic table, where the insertion to come may evict or move it."""
    if cursor.scratch_end - cursor.scratch < field.name_length:
        return LONG_LIST
    memcpy(cursor.scratch, field.name, field.name_length)
    field.name = cursor.scratch
    cursor.scratch += field.name_length
    return FINE


cdef int read_size_update(Cursor* cursor, Table* table, Py_ssize_t max_table_size) noexcept nogil:
    """Read a dynamic table size update (RFC 7541 §6.3) and evict what no longer fits."""
    cdef uint64_t size
    cdef int failure = get_integer(cursor, 5, &size)
    if failure:
        return failure
    if size > <uint64_t>max_table_size:
        return LARGE_SIZE_UPDATE
    table.capacity = <Py_ssize_t>size
    table_shrink(table, table.capacity)
    return FINE


cdef int _connection_error(int failure) except -1:
    raise ProtocolViolation(
        ErrorCode.ENHANCE_YOUR_CALM if failure == LONG_LIST else ErrorCode.COMPRESSION_ERROR, _FAILURES[failure]
    )


cdef class ResponseDecoder:
    """Decodes the header blocks of one connection's responses, all of them and in order.

    Everything happens in memory that is allocated once. Python objects are made only for the fields of a response
    that is kept: asked for, or of status 300 and up.

    Args:
        max_table_size: what our SETTINGS_HEADER_TABLE_SIZE offers, in octets. The peer starts with 4096.
        max_list_size: the largest sum of name, value and 32 over the fields of a block, in octets
            (SETTINGS_MAX_HEADER_LIST_SIZE, RFC 9113 §6.5.2).

    Attributes:
        status: of the last block, interim ones included; 0 for trailers and when it was malformed.
        content_length: of the last block, octets; −1 without the field, for trailers and when it was malformed.
        fields: of the last block, without pseudo-header fields; None unless they were kept.
        fault: why the last block was malformed, without a full stop; None when it was well-formed.

    Raises:
        ValueError: a size is negative or 2³¹ and more.
    """

    def __cinit__(self, Py_ssize_t max_table_size=DEFAULT_TABLE_SIZE, Py_ssize_t max_list_size=65536):
        cdef Py_ssize_t entries = 1
        if not (0 <= max_table_size < 1 << 31 and 0 <= max_list_size < 1 << 31):
            raise ValueError("max_table_size and max_list_size must be between 0 and 2147483647 octets")
        while entries * ENTRY_OVERHEAD < max_table_size:
            entries *= 2
        self._max_table_size = max_table_size
        self._max_list_size = max_list_size
        self._table.mask = entries - 1
        self._table.arena = 2 * max_table_size
        self._table.capacity = min(max_table_size, <Py_ssize_t>DEFAULT_TABLE_SIZE)
        self._table.entries = <Entry*>PyMem_Calloc(entries, sizeof(Entry))
        self._table.octets = <uint8_t*>PyMem_Malloc(self._table.arena)
        self._scratch = <uint8_t*>PyMem_Malloc(max_list_size)
        if self._table.entries == NULL or self._table.octets == NULL or self._scratch == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_Free(self._table.entries)
        PyMem_Free(self._table.octets)
        PyMem_Free(self._scratch)

    def decode_block(self, bytes block not None, bint keep=True, bint trailers=False):
        """Decode one header block. Returns whether it is well-formed (RFC 9113 §8.1.1).

        Args:
            block: the fragments of HEADERS and CONTINUATION, joined.
            keep: make `fields` whatever the status is.
            trailers: the block ends a response, so pseudo-header fields are malformed.

        Raises:
            ProtocolViolation: COMPRESSION_ERROR, or ENHANCE_YOUR_CALM beyond max_list_size: a connection error, after
                which the decoder is of no more use.
        """
        return self.decode(<const uint8_t*>PyBytes_AS_STRING(block), len(block), keep, trailers) == 0

    cdef int decode(self, const uint8_t* block, Py_ssize_t length, bint keep, bint trailers) except -1:
        cdef Cursor cursor
        cdef Field field
        cdef Py_ssize_t room = self._max_list_size
        cdef int failure, status = 0, fault = 0
        cdef int64_t octets, content_length = -1
        cdef bint begun = False, regular = False
        cdef list fields = [] if keep else None
        self.status = 0
        self.content_length = -1
        self.fields = None
        self.fault = None
        cursor.at = block
        cursor.end = block + length
        while cursor.at < cursor.end:
            if cursor.at[0] & 0xE0 == SIZE_UPDATE:
                if begun:
                    _connection_error(LATE_SIZE_UPDATE)
                failure = read_size_update(&cursor, &self._table, self._max_table_size)
                if failure:
                    _connection_error(failure)
                continue
            begun = True
            cursor.scratch = self._scratch
            cursor.scratch_end = self._scratch + room
            failure = read_field(&cursor, &self._table, &field)
            if failure:
                _connection_error(failure)
            room -= field.name_length + field.value_length + ENTRY_OVERHEAD
            if room < 0:
                _connection_error(LONG_LIST)
            if fault:
                continue
            if field.verdict == REGULAR or field.verdict == CONTENT_LENGTH:
                regular = True
                if field.verdict == CONTENT_LENGTH and not trailers:
                    octets = read_length(field.value, field.value_length)
                    if content_length >= 0 and octets != content_length:
                        fault = SECOND_LENGTH
                    content_length = octets
                if fields is not None:
                    fields.append((
                        PyBytes_FromStringAndSize(<const char*>field.name, field.name_length),
                        PyBytes_FromStringAndSize(<const char*>field.value, field.value_length),
                    ))
            elif field.verdict < 0 or trailers or regular or status:
                fault = misplaced(field.verdict, trailers, regular)
            else:
                status = field.verdict
                if status >= 300 and fields is None:
                    fields = []
        if status == 0 and not trailers and not fault:
            fault = NO_STATUS
        if fault:
            self.fault = _FAULTS[-fault]
            return 1
        self.status = status
        self.content_length = content_length
        self.fields = fields
        return 0


cdef int misplaced(int verdict, bint trailers, bint regular) noexcept nogil:
    """Return the fault of a field that is malformed by itself, or of a :status that is not where it may be."""
    if verdict < 0 and verdict != UNKNOWN_PSEUDO and verdict != BAD_STATUS:
        return verdict
    if trailers:
        return PSEUDO_IN_TRAILERS
    if regular:
        return LATE_PSEUDO
    return verdict if verdict < 0 else SECOND_STATUS

# cython: language_level=3
# No directive switches checks off: the hot code indexes C pointers only, which Cython never checks; `bound` says how
# much it writes. What is left of Python here runs once a run.
"""HPACK's encoder (RFC 7541): the header blocks of requests, from a template."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpost._hpack_tables cimport (
    DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, EOS, HUFFMAN, INCREMENTAL, INDEXED, NEVER_INDEXED, NOT_INDEXED, SIZE_UPDATE,
    STATIC_LENGTH,
)

from fastpost._hpack_tables import STATIC_TABLE, huffman_code

cdef enum:
    # Indices in the static table.
    PATH_INDEX = 4
    CONTENT_LENGTH_INDEX = 28

cdef dict _STATIC_FIELDS = {field: index for index, field in reversed(tuple(enumerate(STATIC_TABLE, 1)))}
cdef dict _STATIC_NAMES = {field[0]: index for index, field in reversed(tuple(enumerate(STATIC_TABLE, 1)))}

# Fields that no table may hold, lest another's guesses be confirmed by their length (RFC 7541 §7.1.3).
cdef frozenset _CREDENTIALS = frozenset(
    {b"authorization", b"cookie", b"proxy-authorization", b"x-api-key", b"x-auth-token"}
)

# The Huffman code, by symbol.
cdef uint32_t CODES[EOS + 1]
cdef uint8_t WIDTHS[EOS + 1]


cdef int _build_huffman() except -1:
    cdef int symbol
    for symbol, code, width in huffman_code():
        CODES[symbol] = code
        WIDTHS[symbol] = width
    return 0


_build_huffman()


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


# --- header blocks ------------------------------------------------------------------------------------


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

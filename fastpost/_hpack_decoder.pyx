# cython: language_level=3
# No directive switches checks off: the hot code indexes C pointers only, which Cython never checks. Their limits are
# checked by hand, below. What is left of Python here runs once a run, or once for a response that is kept.
"""HPACK's decoder (RFC 7541): the header blocks of responses into a status and, if kept, fields."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpost._field_validity cimport (
    CONTENT_LENGTH, NO_STATUS, REGULAR, SECOND_LENGTH, Field, describe, judge, misplaced, read_length,
)
from fastpost._hpack_tables cimport (
    DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, EOS, HUFFMAN, INCREMENTAL, INDEXED, MAX_WIDTH, SIZE_UPDATE, STATIC_LENGTH,
)

from fastpost._hpack_tables import STATIC_TABLE, huffman_code
from fastpost.errors import ErrorCode, ProtocolViolation

# --- the Huffman code (RFC 7541 appendix B) ------------------------------------------------------

cdef enum:
    SHORT_BITS = 10     # one lookup decodes the codes up to this width: every symbol that is usual in fields

# The first SHORT_BITS bits → width << 8 | symbol, or 0 when the code is longer.
cdef uint16_t SHORT_CODES[1 << SHORT_BITS]
# Longer codes, by width: the first code of a greater width, aligned left to 32 bits; the symbols in the order of
# their codes, and what to add to a code of that width to have its place there.
cdef uint64_t CODE_LIMITS[MAX_WIDTH + 1]
cdef int64_t CODE_PLACES[MAX_WIDTH + 1]
cdef uint16_t SYMBOLS[EOS + 1]


cdef int _build_huffman() except -1:
    cdef uint32_t code, filler
    cdef int place, symbol, width
    for place, (symbol, code, width) in enumerate(huffman_code()):
        SYMBOLS[place] = symbol
        # The same for all codes of a width; and the last one of them stays.
        CODE_PLACES[width] = place - <int64_t>code
        CODE_LIMITS[width] = <uint64_t>(code + 1) << (32 - width)
        if width <= SHORT_BITS:
            for filler in range(1 << (SHORT_BITS - width)):
                SHORT_CODES[(code << (SHORT_BITS - width)) + filler] = width << 8 | symbol
    for width in range(1, MAX_WIDTH + 1):
        # Some widths have no code.
        CODE_LIMITS[width] = max(CODE_LIMITS[width], CODE_LIMITS[width - 1])
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

# The unread part of a block, and the unused scratch octets: room for what is Huffman-coded or about to be moved.
cdef struct Cursor:
    const uint8_t* at
    const uint8_t* end
    uint8_t* scratch
    uint8_t* scratch_end

cdef Field STATIC_FIELDS[STATIC_LENGTH + 1]
# They point into it.
cdef tuple _STATIC_TABLE = STATIC_TABLE


cdef int _build_static() except -1:
    cdef int index
    for index in range(1, STATIC_LENGTH + 1):
        name, value = _STATIC_TABLE[index - 1]
        STATIC_FIELDS[index].name = <const uint8_t*>PyBytes_AS_STRING(name)
        STATIC_FIELDS[index].value = <const uint8_t*>PyBytes_AS_STRING(value)
        STATIC_FIELDS[index].name_length = len(name)
        STATIC_FIELDS[index].value_length = len(value)
        STATIC_FIELDS[index].verdict = judge(&STATIC_FIELDS[index])
    return 0


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


# --- header blocks -----------------------------------------------------------------------------------


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
            self.fault = describe(fault)
            return 1
        self.status = status
        self.content_length = content_length
        self.fields = fields
        return 0

# cython: language_level=3
# No directive switches checks off: names and values are C pointers, which Cython never checks; each loop ends at their
# lengths.
"""Whether a response's fields are well-formed (RFC 9113 §8.1.1, §8.2, §8.3.2): each by itself, then in its place."""

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp

# By their verdicts, negated.
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

cdef uint8_t NAME_OCTETS[256]       # 1: a field name may hold it (RFC 9113 §8.2.1)


cdef void _build_name_octets() noexcept:
    cdef int octet
    for octet in range(256):
        NAME_OCTETS[octet] = 0x20 < octet < 0x7F and octet != c":" and not c"A" <= octet <= c"Z"


_build_name_octets()


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
    """Return the verdict on a field by itself; `misplaced` knows about its place in the block."""
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


cdef int misplaced(int verdict, bint trailers, bint regular) noexcept nogil:
    """Return the fault of a field that is malformed by itself, or of a :status that is not where it may be."""
    if verdict < 0 and verdict != UNKNOWN_PSEUDO and verdict != BAD_STATUS:
        return verdict
    if trailers:
        return PSEUDO_IN_TRAILERS
    if regular:
        return LATE_PSEUDO
    return verdict if verdict < 0 else SECOND_STATUS


cdef str describe(int fault):
    """Return what a negative verdict says, without a full stop."""
    return _FAULTS[-fault]

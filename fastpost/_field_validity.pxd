# cython: language_level=3
"""C interface of the judgement on a response's fields."""

from libc.stdint cimport int64_t, uint8_t

# Verdicts on one field: 0 is a regular one, 1 a content-length, 100 … 999 is the :status of that value, a negative one
# is malformed (RFC 9113 §8.1.1: a stream error) and is what `describe` knows.
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


# A name or value points into the block, the static table, a dynamic table or the scratch octets.
cdef struct Field:
    const uint8_t* name
    const uint8_t* value
    Py_ssize_t name_length
    Py_ssize_t value_length
    int verdict


cdef int judge(const Field* field) noexcept nogil
cdef int64_t read_length(const uint8_t* value, Py_ssize_t length) noexcept nogil
cdef int misplaced(int verdict, bint trailers, bint regular) noexcept nogil
cdef str describe(int fault)

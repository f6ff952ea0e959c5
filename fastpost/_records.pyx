# cython: language_level=3, boundscheck=False, wraparound=False
# Bounds checks are off: indices are octets into tables of 256, and offsets below `length`.
"""Records of a journal, written in C: in Python they took 0.75 µs an upload, most of what a journal may cost.

What a record is, `recorded` says, which reads them.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpost._table cimport Attempt

cdef enum:
    # CRC-32, and length of the name, size, mtime and inode.
    _CHECKSUM = 4
    _FACTS = 26
    _LONGEST_NAME = 0xFFFF
    _USUAL = 128

# The CRC-32 of each octet, reflected (polynomial 0x04C11DB7): that of zlib and gzip (RFC 1952 §8); and the same with
# one, two and three octets of zeros behind it. Four octets a step: one at a time would take two thirds of a record.
cdef uint32_t[4][256] _TABLES


cdef void _fill_tables() noexcept:
    cdef uint32_t octet, value
    cdef int step, _bit
    for octet in range(256):
        value = octet
        for _bit in range(8):
            value = (value >> 1) ^ (<uint32_t>0xEDB88320 if value & 1 else 0)
        _TABLES[0][octet] = value
    for octet in range(256):
        for step in range(1, 4):
            value = _TABLES[step - 1][octet]
            _TABLES[step][octet] = _TABLES[0][value & 0xFF] ^ (value >> 8)


_fill_tables()


cdef uint32_t _crc32(const uint8_t* octets, Py_ssize_t length) noexcept nogil:
    cdef uint32_t value = 0xFFFFFFFF
    cdef Py_ssize_t at
    for at in range(0, length - 3, 4):
        value ^= (
            <uint32_t>octets[at] | <uint32_t>octets[at + 1] << 8
            | <uint32_t>octets[at + 2] << 16 | <uint32_t>octets[at + 3] << 24
        )
        value = (
            _TABLES[3][value & 0xFF] ^ _TABLES[2][value >> 8 & 0xFF]
            ^ _TABLES[1][value >> 16 & 0xFF] ^ _TABLES[0][value >> 24]
        )
    for at in range(length & ~3, length):
        value = _TABLES[0][(value ^ octets[at]) & 0xFF] ^ (value >> 8)
    return value ^ <uint32_t>0xFFFFFFFF


cdef inline void _put(uint8_t* out, uint64_t value, int octets) noexcept nogil:
    """Write little-endian."""
    cdef int at
    for at in range(octets):
        out[at] = <uint8_t>(value >> (8 * at))


cdef Py_ssize_t _put_record(
    uint8_t* out, const uint8_t* name, Py_ssize_t length, int64_t size, int64_t mtime_ns, uint64_t inode,
) noexcept nogil:
    """Write one record; returns its octets, the length of the name and 30."""
    cdef uint8_t* facts = out + _CHECKSUM
    _put(facts, length, 2)
    _put(facts + 2, <uint64_t>size, 8)
    _put(facts + 10, <uint64_t>mtime_ns, 8)
    _put(facts + 18, inode, 8)
    memcpy(facts + _FACTS, name, length)
    _put(out, _crc32(facts, _FACTS + length), _CHECKSUM)
    return _CHECKSUM + _FACTS + length


def record(bytes name, int64_t size, int64_t mtime_ns, uint64_t inode) -> bytes:
    """Return the record of a success. Raises ValueError for a name of more than 65,535 octets."""
    if len(name) > _LONGEST_NAME:
        raise ValueError("no record holds a name of more than 65,535 octets")
    out = bytearray(_CHECKSUM + _FACTS + len(name))
    _put_record(<uint8_t*>PyByteArray_AS_STRING(out), name, len(name), size, mtime_ns, inode)
    return bytes(out)


def records(list results) -> bytes:
    """Return the records of those results that are successes, one after the other.

    A name that no record can hold is passed over: no path that can be opened is as long.
    """
    cdef Attempt attempt
    cdef bytes name
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t needed
    # Room for names of usual length, and more where it isn't enough.
    out = bytearray(_USUAL * len(results))
    for item in results:
        attempt = <Attempt?>item
        if attempt.failure is not None:
            continue
        name = attempt.upload.name
        if len(name) > _LONGEST_NAME:
            continue
        needed = done + _CHECKSUM + _FACTS + len(name)
        if needed > PyByteArray_GET_SIZE(out):
            PyByteArray_Resize(out, 2 * needed)
        done += _put_record(
            <uint8_t*>PyByteArray_AS_STRING(out) + done, name, len(name), attempt.size, attempt.mtime_ns, attempt.inode,
        )
    return PyBytes_FromStringAndSize(PyByteArray_AS_STRING(out), done)

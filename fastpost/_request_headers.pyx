# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# Bounds checks are off: blocks are sliced below their length only.
"""The HEADERS of one connection's requests, and CONTINUATION where a block outgrows a frame (RFC 9113 §6.2, §6.10).

The fields of a run's requests are few sets that come again and again: each is encoded once.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from fastpost._frames cimport CONTINUATION, END_HEADERS, END_STREAM, FRAME_HEADER, HEADERS, put_frame_header
from fastpost._gather cimport GatherList
from fastpost._hpack_encoder cimport RequestEncoder
from fastpost._table cimport Attempt

from fastpost._hpack_encoder import encode_literals

cdef enum:
    # Distinct sets of request fields (content types) that are kept encoded.
    _MAX_LITERALS = 1024


@cython.final
cdef class RequestHeaders:
    """Writes them into the gather list: `prepare`, then `write` of the same attempt.

    Args:
        encoder: writes the header blocks.
    """

    def __cinit__(self, RequestEncoder encoder not None):
        self.encoder = encoder
        self._fields = None
        self._literals = None
        self._known = {}

    cdef Py_ssize_t prepare(self, Attempt attempt, int64_t max_frame_size) except -1:
        """Return an upper bound of what `write` will add, octets."""
        cdef Py_ssize_t bound
        if attempt.request_fields is not self._fields:
            # Neighbours in a folder are mostly of one type, and `target` hands out the same tuple: no hashing then.
            self._encode(attempt.request_fields)
        bound = self.encoder.bound(len(attempt.path), len(self._literals))
        return bound + FRAME_HEADER * (bound // max_frame_size + 1)

    cdef int write(self, Attempt attempt, Py_ssize_t bound, GatherList gather, int64_t max_frame_size) except -1:
        """HEADERS with END_STREAM for empty content; CONTINUATION follows where a block outgrows a frame (§6.10)."""
        cdef uint8_t* out = gather.reserve(bound)
        cdef int flags = END_STREAM if attempt.remaining == 0 else 0
        cdef Py_ssize_t length = self.encoder.write(
            out + FRAME_HEADER, attempt.path, len(attempt.path), attempt.remaining, self._literals, len(self._literals),
        )
        if length > max_frame_size:
            return self._write_split(attempt, (out + FRAME_HEADER)[:length], flags, gather, max_frame_size)
        put_frame_header(out, <uint32_t>length, HEADERS, flags | END_HEADERS, attempt.stream_id)
        gather.commit(FRAME_HEADER + length)
        return 0

    cdef int _write_split(
        self, Attempt attempt, bytes block, int flags, GatherList gather, int64_t max_frame_size,
    ) except -1:
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t length
        cdef int kind = HEADERS
        frames = bytearray()
        cdef uint8_t[FRAME_HEADER] header
        while done < len(block):
            length = min(len(block) - done, <Py_ssize_t>max_frame_size)
            if done + length == len(block):
                flags |= END_HEADERS
            put_frame_header(header, <uint32_t>length, kind, flags, attempt.stream_id)
            frames += header[:FRAME_HEADER]
            frames += block[done:done + length]
            done += length
            kind = CONTINUATION
            flags = 0
        memcpy(gather.reserve(len(frames)), <uint8_t*>frames, len(frames))
        gather.commit(len(frames))
        return 0

    cdef int _encode(self, tuple fields) except -1:
        """Take the literals of the request's own fields; the same few sets come again and again."""
        cdef bytes literals = self._known.get(fields)
        if literals is None:
            literals = encode_literals(fields)
            if len(self._known) >= _MAX_LITERALS:
                self._known.clear()
            self._known[fields] = literals
        self._fields = fields
        self._literals = literals
        return 0

# cython: language_level=3
"""C interface of the alarm."""


cdef class Alarm:
    cdef readonly int fd

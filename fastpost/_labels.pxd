# cython: language_level=3
"""C interface of what requests are labelled with."""


cdef class Labels:
    cdef object _fill
    cdef object _escape
    cdef object _guess
    cdef object _declare
    cdef readonly object folders
    cdef readonly object types
    cdef readonly object form
    cdef bytes _before
    cdef bytes _after
    cdef bytes _as_is
    cdef tuple _declared
    cdef tuple _unknown
    # The last folder and suffix met, and what they came to.
    cdef bytes _folder
    cdef bytes _folder_path
    cdef bytes _suffix
    cdef tuple _suffix_fields

    cdef bytes path(self, bytes name)
    cdef tuple fields(self, bytes name, content_type)
    cdef bint _is_plain(self, const char* base, Py_ssize_t length) noexcept
    cdef bint _is_plain_folder(self, const char* folder, Py_ssize_t length) noexcept
    cdef bytes _path_of_folder(self, const char* name, Py_ssize_t length)
    cdef tuple _fields_of_suffix(self, bytes name, const char* suffix, Py_ssize_t length)

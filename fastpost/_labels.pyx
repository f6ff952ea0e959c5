# cython: language_level=3, boundscheck=False, wraparound=False
# Bounds checks are off: positions come from memrchr within the name, and an octet is below 256, as `as_is` is long.
"""What the names of files become in requests, by the thousand: the :path, and the fields that go by the suffix.

Files come folder by folder, and most of a folder end alike: what the last folder and the last suffix came to is kept,
and a file costs one new bytes object. What is out of the ordinary is asked of the target, in Python.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy

cdef extern from "<string.h>" nogil:
    const char* memrchr(const char* octets, int wanted, size_t length)


cdef class Labels:
    """Labels of a target's requests.

    Args:
        fill: returns the :path for a name; asked when `folders` is None.
        folders: what a :path has before the base name, by folder; it makes what it lacks. Asked where that is not
            `before` and the folder.
        before: the same for a name without a folder.
        after: what a :path ends with.
        as_is: 256 octets; what needs no escape in a base name maps to itself, the slash to whatever.
        escape: returns a base name with escapes. Raises what it raises for names that no URL can have.
        types: the fields by suffix; it makes what it lacks, and has None where `guess` is to be asked.
        guess: returns the fields for a name.
        unknown: the fields for names without a suffix.
        declare: returns the fields for a type that an upload has of its own.
        declared: the fields for all; None: they go by the name.
        form: what files are wrapped in; None: they are sent as they are.
    """

    def __cinit__(
        self, *, fill not None, folders, bytes before not None, bytes after not None, bytes as_is not None,
        escape not None, types not None, guess not None, tuple unknown not None, declare not None,
        tuple declared=None, form=None,
    ):
        assert PyBytes_GET_SIZE(as_is) == 256
        self._fill = fill
        self.folders = folders
        self._before = before
        self._after = after
        self._as_is = as_is
        self._escape = escape
        self.types = types
        self._guess = guess
        self._unknown = unknown
        self._declare = declare
        self._declared = declared
        self.form = form
        self._folder = None
        self._folder_path = None
        self._suffix = None
        self._suffix_fields = None

    cdef bytes path(self, bytes name):
        """Return the :path for a name."""
        cdef const char* start = PyBytes_AS_STRING(name)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(name)
        cdef Py_ssize_t base = 0
        cdef const char* slash
        cdef bytes before = self._before
        if self.folders is None:
            return self._fill(name)
        slash = memrchr(start, c"/", length)
        if slash != NULL:
            base = slash - start + 1
            before = self._path_of_folder(start, base - 1)
        if self._is_plain(start + base, length - base):
            return _joined(before, start + base, length - base, self._after)
        return before + self._escape(start[base:length]) + self._after

    cdef bint _is_plain(self, const char* base, Py_ssize_t length) noexcept:
        """Nothing in a base name needs an escape, nor a second look: a leading dot may be "." or "..", as in no URL."""
        cdef const unsigned char* as_is = <const unsigned char*>PyBytes_AS_STRING(self._as_is)
        cdef Py_ssize_t at
        if length == 0 or base[0] == c".":
            return False
        for at in range(length):
            if as_is[<unsigned char>base[at]] != <unsigned char>base[at]:
                return False
        return True

    cdef bytes _path_of_folder(self, const char* name, Py_ssize_t length):
        if (
            self._folder is None or PyBytes_GET_SIZE(self._folder) != length
            or memcmp(PyBytes_AS_STRING(self._folder), name, length) != 0
        ):
            folder = name[:length]
            if self._is_plain_folder(name, length):
                self._folder_path = _joined(self._before, name, length + 1, b"")
            else:
                self._folder_path = self.folders[folder]
            self._folder = folder
        return self._folder_path

    cdef bint _is_plain_folder(self, const char* folder, Py_ssize_t length) noexcept:
        """Nothing in any part of a folder's name needs an escape, nor a second look; `folder[length]` is a slash."""
        cdef Py_ssize_t part = 0
        cdef Py_ssize_t end
        while part <= length:
            end = <const char*>memchr(folder + part, c"/", length + 1 - part) - folder
            if not self._is_plain(folder + part, end - part):
                return False
            part = end + 1
        return True

    cdef tuple fields(self, bytes name, content_type):
        """Return the fields that say what a file holds; `content_type` is the upload's own, or None."""
        cdef const char* start = PyBytes_AS_STRING(name)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(name)
        cdef const char* dot
        if content_type:
            return self._declare(content_type)
        if self._declared is not None:
            return self._declared
        if content_type is not None:
            return self._declare(content_type)  # an empty one, which is none
        dot = memrchr(start, c".", length)
        # No dot, or a dotfile: no suffix.
        if dot == NULL or dot == start or dot[-1] == c"/":
            return self._unknown
        return self._fields_of_suffix(name, dot + 1, start + length - dot - 1)

    cdef tuple _fields_of_suffix(self, bytes name, const char* suffix, Py_ssize_t length):
        if (
            self._suffix is None or PyBytes_GET_SIZE(self._suffix) != length
            or memcmp(PyBytes_AS_STRING(self._suffix), suffix, length) != 0
        ):
            key = suffix[:length]
            fields = self.types[key]
            if fields is None:
                return self._guess(name)
            self._suffix_fields = fields
            self._suffix = key
        return self._suffix_fields

    # --- the same for Python ----------------------------------------------------------------------

    def request_path(self, bytes name not None) -> bytes:
        """Return the :path for a name. Raises what `escape`, `folders` and `fill` raise."""
        return self.path(name)

    def content_fields(self, bytes name not None, content_type=None) -> tuple:
        """Return the fields that say what a file holds; the same object for the same suffix."""
        return self.fields(name, content_type)


cdef bytes _joined(bytes before, const char* base, Py_ssize_t length, bytes after):
    cdef Py_ssize_t head = PyBytes_GET_SIZE(before)
    cdef Py_ssize_t tail = PyBytes_GET_SIZE(after)
    cdef bytes whole = PyBytes_FromStringAndSize(NULL, head + length + tail)
    cdef char* out = PyBytes_AS_STRING(whole)
    memcpy(out, PyBytes_AS_STRING(before), head)
    memcpy(out + head, base, length)
    memcpy(out + head + length, PyBytes_AS_STRING(after), tail)
    return whole

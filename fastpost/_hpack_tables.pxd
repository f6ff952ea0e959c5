# cython: language_level=3
"""Numbers of RFC 7541 that HPACK's encoder and decoder share."""

cdef enum:
    STATIC_LENGTH = 61
    ENTRY_OVERHEAD = 32             # §4.1
    DEFAULT_TABLE_SIZE = 4096       # RFC 9113 §6.5.2

    # First octets of the representations (§6), and the flag of a Huffman-coded string (§5.2).
    INDEXED = 0x80
    INCREMENTAL = 0x40
    SIZE_UPDATE = 0x20
    NEVER_INDEXED = 0x10
    NOT_INDEXED = 0x00
    HUFFMAN = 0x80

    # The Huffman code's end of string, the one symbol that is no octet; and the most bits of a code.
    EOS = 256
    MAX_WIDTH = 30

"""Cryptographic aggregation of vectors: encodings under masks, as protocols without I/O (bytes in, bytes out)."""

__version__ = "0.1.0"

"""SEAL's files, the way to get words into it and out of it: framing of ours, no parsing of what a peer made."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Protocol

import numpy as np
import zstandard

from protocols.ring import RingVector

# SEAL 4.x native framing (serialization.h): magic, header size, version 4.3, compression, reserved, total size.
_SEAL_HEADER = struct.Struct("<HBBBBHQ")
_SEAL_MAGIC = 0xA15E
_UNCOMPRESSED, _ZSTANDARD = 0, 2


class Saved(Protocol):
    """One of SEAL's arrays, which saves itself into a file."""

    def save(self, path: str, /) -> object: ...


def plaintext(residues: RingVector, parms_id: Sequence[int]) -> bytes:
    """SEAL's file of a plaintext at scale 1, which is what it keeps a secret key as."""
    count = struct.pack("<Q", len(residues))
    array = framed(count + residues.astype("<u8", copy=False).tobytes())
    return framed(struct.pack("<4Q", *parms_id) + count + struct.pack("<d", 1.0) + array)


def framed(body: bytes) -> bytes:
    """A body behind SEAL's header, uncompressed."""
    size = _SEAL_HEADER.size
    return _SEAL_HEADER.pack(_SEAL_MAGIC, size, 4, 3, _UNCOMPRESSED, 0, size + len(body)) + body


def words(array: Saved, count: int, file: Scratch) -> RingVector:
    """The words of one of SEAL's arrays. It hands out single words or a file: the file is 20 times faster."""
    array.save(file.path)
    data = file.read()
    compression = _SEAL_HEADER.unpack_from(data)[4]
    body = data[_SEAL_HEADER.size :]
    if compression == _ZSTANDARD:
        body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
    elif compression != _UNCOMPRESSED:
        raise RuntimeError(f"SEAL writes compression {compression}, which is not known here: pin another tenseal")
    found = np.frombuffer(body, "<u8")
    if len(found) != count + 1 or found[0] != count:
        raise RuntimeError("SEAL's array is not in the form that this was written for: pin another tenseal")
    return found[1:]


@dataclass(frozen=True)
class Scratch:
    """A file that SEAL can be given the name of."""

    file: IO[bytes]
    path: str

    def read(self) -> bytes:
        """All of it."""
        self.file.seek(0)
        return self.file.read()

    def write(self, data: bytes) -> None:
        """From its start on."""
        self.file.seek(0)
        self.file.write(data)


@contextmanager
def scratch() -> Iterator[Scratch]:
    """Kept off the disk where the system allows, else of mode 0600."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("securefl"), "w+b", buffering=0) as memory:
            yield Scratch(memory, f"/proc/self/fd/{memory.fileno()}")
    else:
        with tempfile.NamedTemporaryFile(buffering=0) as file:
            yield Scratch(file.file, file.name)

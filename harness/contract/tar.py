"""The headers of a tar archive: its members in order, or a ValueError that says in a few words what is wrong."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import IO

MAX_HEADER_BYTES = 1 << 20
"""A long name or a list of attributes (PAX) is read into memory whole; a larger one is refused."""


class _Headers(io.RawIOBase):
    """A stream that gives tarfile no more at once than a header needs, whatever the header says."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header says that it has {size:,} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def tar_members(stream: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an uncompressed tar, reading headers alone; the caller may read from `stream` in between.

    Raises:
        ValueError: the archive is damaged or cut off. What was yielded before is sound.
    """
    end = 0
    try:
        stream.seek(0)
        with tarfile.open(fileobj=_Headers(stream), mode="r:") as tar:
            while (member := tar.next()) is not None:
                # Sizes below zero lead some versions of tarfile back to headers it has read already.
                if member.size < 0 or member.offset < end:
                    raise tarfile.ReadError("headers overlap")
                end = member.offset_data
                tar.members.clear()  # type: ignore[attr-defined] # tarfile keeps them all, which nobody needs
                yield member
            # tarfile stops silently at a broken header; a complete archive ends with zeros, or right here.
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a header is broken")
    except RecursionError:  # tarfile follows a header that describes another one by calling itself
        raise ValueError("too many headers in a row describe one member") from None
    except Exception as error:  # of a damaged header tarfile raises whatever its parser happens to raise
        raise ValueError(str(error) or type(error).__name__) from error

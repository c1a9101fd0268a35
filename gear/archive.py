"""What is checked of a PyTorch file before anything in it is unpickled: its sizes, and the checksum of every record.

`torch.save` writes a zip archive with the CRC-32 of every record, pickle and tensors alike, and `torch.load` does not
look at them: a bit that a disk or a copy turned round becomes another weight. So they are looked at here, once, when a
file is opened. Files in the format before PyTorch 1.6, and those saved with `set_crc32_options(False)`, have no seal.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import torch

MAX_TENSORS = 20_000
"""Records of an archive, and tensors of a safetensors file. The largest model here has about 600 tensors."""
MAX_PICKLE_INSTRUCTIONS = 1_000_000
"""Of the pickle that names the tensors: 20 to 30 for each, and as many for the plain objects beside them."""

MAX_NESTED_TUPLES = 1_000
"""Tuples inside tuples. Python looks into a tuple that becomes the key of a dictionary without watching its stack."""

ZIP_START = b"PK\x03\x04"
"""Of the format of torch.save since PyTorch 1.6."""

_CHUNK_BYTES = 1 << 20
_LEGACY_PICKLES = 5
"""Magic number, protocol, system, the objects, the keys of the storages; raw storages follow."""

MALFORMED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""The errors that readers of archives and pickles raise for a damaged file."""


class TooLarge(Exception):
    """The file asks for more than a model needs; the message says which bound it is beyond."""


def check_archive(path: Path) -> None:
    """Read a zipped file once, and compare every record with its checksum.

    Raises TooLarge beyond a bound, and one of MALFORMED, whose text says what is wrong, for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if len(records) > MAX_TENSORS:
            raise TooLarge(f"it has {len(records):,} records, and at most {MAX_TENSORS:,} are read")
        packed = next((record for record in records if record.compress_type != zipfile.ZIP_STORED), None)
        if packed is not None:
            raise TooLarge(f"its record {packed.filename!r} is compressed, which torch.save never does")
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise TooLarge("its records claim to be larger than the file")
        if _is_sealed(records):
            for record in records:
                _check_record(archive, record)
    _check_pickle(io.BytesIO(torch.PyTorchFileReader(str(path)).get_record("data.pkl")))  # what torch.load will see


def check_legacy(path: Path) -> None:
    """Bound the pickles of a file from before PyTorch 1.6, which has no checksums. Raises like `check_archive`."""
    with path.open("rb") as stream:
        for _ in range(_LEGACY_PICKLES):
            _check_pickle(stream)


def is_sealed(path: Path) -> bool:
    """Whether a file that `check_archive` has passed carries checksums."""
    with path.open("rb") as stream:
        if stream.read(4) != ZIP_START:
            return False
    with zipfile.ZipFile(path) as archive:
        return _is_sealed(archive.infolist())


def _is_sealed(records: list[zipfile.ZipInfo]) -> bool:
    return any(record.CRC for record in records)


def _check_record(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> None:
    try:
        with archive.open(record) as stream:
            while stream.read(_CHUNK_BYTES):
                pass
    except zipfile.BadZipFile:
        raise zipfile.BadZipFile(f"its record {record.filename!r} does not match its checksum") from None


def _check_pickle(stream: IO[bytes]) -> None:
    depths = _TupleDepths()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream), start=1):
        if number == MAX_PICKLE_INSTRUCTIONS:
            raise TooLarge(f"its pickle has more than {MAX_PICKLE_INSTRUCTIONS:,} instructions")
        if depths.after(opcode, argument) > MAX_NESTED_TUPLES:
            raise TooLarge(f"its pickle has more than {MAX_NESTED_TUPLES:,} tuples inside each other")


class _TupleDepths:
    """The unpickler's stack and memo, with the depth of a tuple in the place of each value, and 0 for anything else."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.memo: dict[int, int] = {}

    def after(self, opcode: pickletools.OpcodeInfo, argument: object) -> int:
        """The depth of what an instruction leaves on top of the stack; LookupError where it takes what is not there."""
        match opcode.name:
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[_as_int(argument)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[_as_int(argument)])
            case "DUP":
                self.stack.append(self.stack[-1])
            case _:
                taken = self._take(opcode.stack_before)
                is_tuple = pickletools.pytuple in opcode.stack_after
                depth = 1 + max(taken, default=0) if is_tuple else 0
                self.stack += [_MARK if kind is pickletools.markobject else depth for kind in opcode.stack_after]
        return self.stack[-1] if self.stack else 0

    def _take(self, before: list[pickletools.StackObject]) -> list[int]:
        """Remove what an instruction takes: so many values, or those above the last mark and what it names below."""
        count = len(before)
        if pickletools.markobject in before:
            place = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
            count = len(self.stack) - place + before.index(pickletools.markobject)
        if count > len(self.stack):
            raise IndexError("its pickle takes more from the stack than there is")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken


_MARK = -1


def _as_int(argument: object) -> int:
    assert isinstance(argument, int | str)
    return int(argument)

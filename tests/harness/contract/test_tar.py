"""Headers of tars: the members, or a ValueError, whatever the bytes; and soon."""

from __future__ import annotations

import contextlib
import io
import random
import tarfile
import tracemalloc

import pytest

from harness.contract.tar import tar_members


def header(name: bytes = b"a.jpg", size: int | bytes = 0, kind: bytes = b"0") -> bytes:
    """One block of 512 bytes, its checksum right."""
    digits = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(name.ljust(100, b"\0") + b"0000644\0" * 3 + digits + b"00000000000\0" + b" " * 8 + kind)
    block += bytes(100) + b"ustar\x0000" + bytes(247)
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


END = bytes(1024)
FILE = header(size=3) + padded(b"abc")
LONG_NAME = header(b"././@LongLink", 200, b"L") + padded(b"x" * 199 + b"\0")
ATTRIBUTES = header(b"pax", 10, b"x") + padded(b"10 path=b\n")
GLOBAL = header(b"pax", 10, b"g") + padded(b"10 path=b\n")
BASE_256 = b"\x80" + (1 << 40).to_bytes(11, "big")


def names(content: bytes) -> list[str]:
    return [member.name for member in tar_members(io.BytesIO(content))]


def test_the_members_of_a_healthy_archive_come_in_order_and_can_be_read_in_between() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(5):
            member = tarfile.TarInfo(f"{number}" + "ä" * 150)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"%d%d%d" % (number, number, number)))
    found = []
    for member in tar_members(stream):
        stream.seek(member.offset_data)
        found.append((member.name[0], stream.read(member.size)))
    assert found == [(str(number), b"%d" % number * 3) for number in range(5)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty file"),
        (LONG_NAME * 5_000 + FILE + END, "too many headers in a row"),
        (ATTRIBUTES * 5_000 + FILE + END, "too many headers in a row"),
        (GLOBAL * 5_000 + FILE + END, "too many headers in a row"),
        (header(b"././@LongLink", BASE_256, b"L") + END, "a header says that it has 1,099,511,627,776 bytes"),
        (header(b"pax", BASE_256, b"x") + END, "a header says that it has"),
        (header(b"pax", 20, b"x") + padded(b"20 GNU.sparse.map=a\n") + FILE + END, r"\S"),
        (FILE + header(size=BASE_256) + END, r"\S"),
        (FILE[:-1], r"\S"),
    ],
)
def test_a_hostile_archive_is_a_value_error(content: bytes, sentence: str) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=sentence):
        names(content)
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_what_comes_before_the_damage_is_sound() -> None:
    members = tar_members(io.BytesIO(FILE * 3 + b"x" * 512 + FILE))
    assert [next(members).name for _ in range(3)] == ["a.jpg"] * 3
    with pytest.raises(ValueError, match="a header is broken"):
        next(members)


@pytest.mark.parametrize("seed", range(8))
def test_any_change_of_an_archive_is_members_or_a_value_error(seed: int) -> None:
    rng = random.Random(seed)
    whole = LONG_NAME + FILE + ATTRIBUTES + FILE + GLOBAL + FILE + header(kind=b"5") + END
    pieces = [b"", b"\xff" * 12, BASE_256, b"L", b"x", b"g", b"S", b"K", b"V", b"\0" * 8, b"99999999999\0", b"-1"]
    for _ in range(60):
        content = bytearray(whole)
        start = 512 * rng.randrange(len(content) // 512)
        for _ in range(rng.randrange(1, 4)):
            piece = rng.choice([*pieces, rng.randbytes(4)])
            place = start + rng.choice([0, 124, 148, 156, 157, 257, 386, 482, 483, rng.randrange(512)])
            content[place : place + len(piece)] = piece
        if len(content) >= start + 512:  # a checksum that is right lets the damage through
            content[start + 148 : start + 156] = b" " * 8
            content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
        with contextlib.suppress(ValueError):
            names(bytes(content))

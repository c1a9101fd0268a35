import contextlib
import gzip
import io
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from harness.contract import sample_set_from_npz
from harness.contract.errors import BadSamples, EnvironmentFailure, MissingAsset
from harness.contract.npz import NpzStreamWriter, npz_names, open_npz_member, read_npz_array

DTYPES = st.sampled_from([np.uint8, np.int64, np.float16, np.float32, np.float64, np.bool_, np.dtype(">i4")])
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(max_dims=4, max_side=5)))
files = settings(max_examples=40, deadline=None)


def write(path, array, batch=2, **extra):
    writer = NpzStreamWriter(path, count=len(array), shape_tail=array.shape[1:], dtype=array.dtype, extra=extra)
    with writer:
        for start in range(0, len(array), batch):
            writer.append(array[start : start + batch])


def read(path, size=3, name="arr_0"):
    with open_npz_member(path, name) as member:
        return np.concatenate(list(member.batches(size)))


@files
@given(array=ARRAYS, batch=st.integers(1, 7), size=st.integers(1, 7))
def test_what_is_streamed_is_what_numpy_loads_and_what_is_streamed_back(tmp_path_factory, array, batch, size):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    write(path, array, batch, labels=np.arange(3))
    with np.load(path) as loaded:
        np.testing.assert_array_equal(loaded["arr_0"], array)
        np.testing.assert_array_equal(loaded["labels"], [0, 1, 2])
    np.testing.assert_array_equal(read(path, size), array)
    assert npz_names(path) == ["labels", "arr_0"]


@files
@given(array=ARRAYS, size=st.integers(1, 7), save=st.sampled_from([np.savez, np.savez_compressed]))
def test_what_numpy_saves_is_streamed(tmp_path_factory, array, size, save):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    save(path, array)
    np.testing.assert_array_equal(read(path, size), array)


def test_equal_arrays_give_equal_archives(tmp_path):
    array = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    write(tmp_path / "a.npz", array, batch=1)
    write(tmp_path / "b.npz", array, batch=5)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_scalar_and_an_empty_array_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", scalar=np.float64(2.5), empty=np.zeros((0, 3)))
    assert read_npz_array(tmp_path / "a.npz", "scalar") == 2.5
    assert read_npz_array(tmp_path / "a.npz", "empty").shape == (0, 3)


def test_the_data_offset_leads_to_the_data(tmp_path):
    array = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    write(tmp_path / "a.npz", array, labels=np.arange(5))
    with open_npz_member(tmp_path / "a.npz") as member:
        assert np.fromfile(tmp_path / "a.npz", np.uint8, 60, offset=member.data_offset).tolist() == list(range(60))
    np.savez_compressed(tmp_path / "b.npz", array)
    with open_npz_member(tmp_path / "b.npz") as member:
        assert member.data_offset is None


# --- writing what was not announced ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (np.zeros((3, 2), np.uint8), "announced with 4 rows; 3 were appended"),
        (np.zeros((5, 2), np.uint8), "announced with 4 rows; more were appended"),
        (np.zeros((4, 3), np.uint8), "takes rows"),
        (np.zeros((4, 2), np.int64), "takes rows"),
    ],
)
def test_rows_that_were_not_announced_leave_no_file(tmp_path, rows, sentence):
    with (
        pytest.raises(ValueError, match=sentence),
        NpzStreamWriter(tmp_path / "a.npz", count=4, shape_tail=(2,)) as writer,
    ):
        writer.append(rows)
    assert list(tmp_path.iterdir()) == []


def test_python_objects_are_never_written(tmp_path):
    for arguments in ({"dtype": object}, {"extra": {"x": np.array([{}])}}, {"extra": {"arr_0": np.zeros(1)}}):
        with pytest.raises(ValueError, match="names in an archive are distinct"):
            NpzStreamWriter(tmp_path / "a.npz", count=1, shape_tail=(), **arguments)


FULL = """
import resource, sys
import numpy as np
from harness.contract import NpzStreamWriter, UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with NpzStreamWriter(sys.argv[1], count=64, shape_tail=(1 << 16,)) as writer:
        for _ in range(64):
            writer.append(np.zeros((1, 1 << 16), np.uint8))
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_in_the_middle_of_an_archive_is_one_sentence(tmp_path):
    full = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "a.npz")], check=False, capture_output=True, text=True
    )
    assert (full.returncode, full.stderr) == (EnvironmentFailure.exit_code, "")
    assert "the disk or quota is full" in full.stdout
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
import numpy as np
from harness.contract import NpzStreamWriter
with NpzStreamWriter(sys.argv[1], count=2, shape_tail=(3,)) as writer:
    writer.append(np.zeros((1, 3), np.uint8))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_in_the_middle_leaves_no_archive(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.npz")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.npz").exists()


# --- archives that are not what they should be -----------------------------------------------------------------------


def npy(descr="'|u1'", order=False, shape="(2, 3)", data=b"123456", version=1, header=None, length=None):
    """The bytes of an .npy member, as wrong as asked for."""
    text = (header or f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}").encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def archive(path, member, name="arr_0.npy", compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr(name, member)


WRONG_MEMBERS = {
    "no NumPy array": (b"P6 640 480", "unreadable header .the magic string is not correct"),
    "an unknown version": (
        npy(version=1).replace(b"NUMPY\x01", b"NUMPY\x09"),
        r"version \(9, 0\) of NumPy's format is not known",
    ),
    "nothing": (b"", "unreadable header .EOF: reading magic string"),
    "half a header": (npy()[:20], "unreadable header .EOF: reading array header"),
    "a header without end": (
        npy(version=2, length=2**31),
        "reading array header, expected 2147483648 bytes",
    ),
    "a header that is code": (npy(header="__import__('os').system('true')"), "unreadable header"),
    "a header without a shape": (npy(header="{'descr': '|u1', 'fortran_order': False}"), "unreadable header"),
    "a header that is nested": (npy(header="[" * 500), "unreadable header"),
    "a header that is long": (npy(version=2, header="[" * 70_000), "unreadable header"),
    "a header with more in it": (
        npy(header="{'descr': '|u1', 'fortran_order': False, 'shape': (6,), 'x': 1}"),
        "unreadable",
    ),
    "an array of arrays": (npy(descr="('|u1', (3,))"), "structured array|unreadable header"),
    "an unknown dtype": (npy(descr="'|zz'"), "unreadable header"),
    "a pickle": (npy(descr="'|O'", data=b"cos\nsystem\n"), "Python objects .* never loaded"),
    "a pickle in a field": (npy(descr="[('a', '|O')]"), "Python objects .* never loaded"),
    "a structured array": (npy(descr="[('a', '|u1')]"), "structured array"),
    "a negative shape": (npy(shape="(-2, 3)"), "invalid shape"),
    "a shape that is a list": (npy(shape="[2, 3]"), "shape is not valid"),
    "a shape of floats": (npy(shape="(2.0, 3)"), "shape is not valid"),
    "a shape of truths": (npy(shape="(True, 3)"), "invalid shape"),
    "Fortran order": (npy(order=True), "Fortran order.*ascontiguousarray"),
    "too little data": (npy(data=b"12345"), r"which is 6 bytes, but holds 5"),
    "too much data": (npy(data=b"1234567"), r"which is 6 bytes, but holds 7"),
    "a bomb": (npy(shape="(50000, 512, 512, 3)"), "claims .* but holds 6"),
    "a bomb beyond 64 bits": (npy(shape="(99999999999, 99999999999, 99999999999)"), "claims .* but holds 6"),
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(("member", "sentence"), WRONG_MEMBERS.values(), ids=WRONG_MEMBERS.keys())
def test_a_wrong_member_is_refused_by_name(tmp_path, member, sentence, compression):
    archive(tmp_path / "a.npz", member, compression=compression)
    with pytest.raises(BadSamples, match=rf"a\.npz.*{sentence}"):
        read(tmp_path / "a.npz")


def test_a_header_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    header = npy(version=2, length=2**30) + bytes(2**24)
    archive(tmp_path / "a.npz", header, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(BadSamples, match=r"expected 1073741824 bytes got 65536"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_of_the_header_is_read(tmp_path, version):
    archive(tmp_path / "a.npz", npy(version=version))
    assert read(tmp_path / "a.npz").tobytes() == b"123456"


def test_numpys_own_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", np.array([{}, None], dtype=object))
    with pytest.raises(BadSamples, match="never loaded; save a plain uint8 array"):
        read(tmp_path / "a.npz")


def test_a_missing_array_is_refused_with_what_is_there(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 2)))
    with pytest.raises(BadSamples, match=r"has no array 'arr_0' \(it holds images\.npy\); save it as np\.savez"):
        read(tmp_path / "a.npz")


def test_an_array_that_stands_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as out:
        out.writestr("arr_0.npy", npy())
        with pytest.warns(UserWarning, match="Duplicate name"):
            out.writestr("arr_0.npy", npy())
    with pytest.raises(BadSamples, match="twice"):
        read(tmp_path / "a.npz")


def test_a_compression_that_numpy_does_not_write_is_refused(tmp_path):
    archive(tmp_path / "a.npz", npy(), compression=zipfile.ZIP_LZMA)
    with pytest.raises(BadSamples, match="compressed in a way NumPy does not write"):
        read(tmp_path / "a.npz")


def test_an_encrypted_member_is_refused(tmp_path):
    archive(tmp_path / "a.npz", npy())
    data = bytearray((tmp_path / "a.npz").read_bytes())
    central = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[central + 8] |= 1
    (tmp_path / "a.npz").write_bytes(bytes(data))
    with pytest.raises(BadSamples, match="encrypted"):
        read(tmp_path / "a.npz")


NO_ARCHIVES = {"empty": b"", "text": b"hello", "an image": b"\x89PNG\r\n\x1a\n", "the end of a zip": b"PK\x05\x06"}


@pytest.mark.parametrize("data", NO_ARCHIVES.values(), ids=NO_ARCHIVES.keys())
def test_what_is_no_archive_is_refused_by_name(tmp_path, data):
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(BadSamples, match=r"a\.npz: is not a whole NPZ archive .*copy or write it again"):
        read(tmp_path / "a.npz")


def test_a_bare_npy_file_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    with pytest.raises(BadSamples, match=r"it is a single \.npy array\); save it as np\.savez\(path, arr_0=np\.load"):
        read(tmp_path / "a.npz")


def other_file(path, kind):
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    elif kind == "gzip":
        path.write_bytes(gzip.compress(b"x"))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"arr_0": [1, 2]}))
    else:
        Image.new("RGB", (4, 4)).save(path, format=kind)


@pytest.mark.parametrize("kind", ["tar", "gzip", "pickle", "PNG", "JPEG", "WEBP"])
def test_a_healthy_file_of_another_kind_is_told_from_a_damaged_one(tmp_path, kind):
    other_file(tmp_path / "a.npz", kind)
    with pytest.raises(BadSamples, match=rf"(?i)not a whole NPZ archive \(it is a {kind}.*\); ") as caught:
        read(tmp_path / "a.npz")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1 << 62, 0), (0, 1 << 62), (1 << 40, 1 << 40, 0), (1 << 63, 0), (0, 1 << 70)])
def test_an_array_of_nothing_with_a_huge_shape_is_refused(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as out:
        out.writestr("arr_0.npy", npy(data=bytes(12), shape="(1, 2, 2, 3)"))
        out.writestr("labels.npy", npy(data=b"", shape=repr(shape), descr="'<i8'"))
    for load in (lambda: read_npz_array(tmp_path / "a.npz", "labels"), lambda: read(tmp_path / "a.npz", name="labels")):
        with pytest.raises(BadSamples, match=r"labels\.npy (claims .* which holds nothing|has an unreadable header)"):
            load()
    with pytest.raises(BadSamples, match=r"labels\.npy"):
        sample_set_from_npz(tmp_path / "a.npz", tmp_path / "out")


def test_a_megabyte_that_unpacks_to_a_gigabyte_is_refused_before_it_does(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out, out.open("arr_0.npy", "w") as member:
        member.write(npy(data=b"", shape="(1024, 1024, 1024)"))
        for _ in range(64):
            member.write(bytes(1 << 24))
    assert path.stat().st_size < 2 << 20
    with pytest.raises(BadSamples, match=r"would unpack from 1,\d+,\d+ to 1,073,\d+,\d+ bytes, more than 200 times"):
        read_npz_array(path, "arr_0")


def test_a_zip_of_several_disks_and_a_pipe_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros(3))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    end = data.rindex(b"PK\x05\x06")
    locator = b"PK\x06\x07" + struct.pack("<LQL", 3, 0, 7)
    for disks in (data[: end + 4] + b"\1\0\1\0" + data[end + 8 :], data[:end] + locator + data[end:]):
        (tmp_path / "b.npz").write_bytes(disks)
        with contextlib.suppress(BadSamples):
            np.testing.assert_array_equal(read(tmp_path / "b.npz"), np.zeros(3))
        with contextlib.suppress(BadSamples):
            assert npz_names(tmp_path / "b.npz") == ["arr_0"]
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(BadSamples, match=r"pipe\.npz: is not a whole NPZ archive \(it is a pipe"):
        read(tmp_path / "pipe.npz")


@pytest.mark.parametrize("seed", range(6))
def test_any_change_of_an_archive_is_noticed_or_harmless(tmp_path, seed):
    """Several bytes at once, the fields of the directory above all; and pieces put in and left out."""
    rng = random.Random(seed)
    array = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
    path = tmp_path / "a.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, arr_0=array, labels=np.arange(2))
        whole = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for _ in range(rng.randrange(1, 4)):
                place = rng.choice(
                    [rng.randrange(len(damaged)), rng.randrange(max(0, len(damaged) - 200), len(damaged))]
                )
                piece = rng.choice([b"", b"\0", b"\xff" * 2, b"\xff" * 4, b"\xff" * 8, rng.randbytes(4)])
                damaged[place : place + rng.choice([len(piece), 1])] = piece
            path.write_bytes(bytes(damaged))
            try:
                found, names = read(path), npz_names(path)
            except (BadSamples, EnvironmentFailure):
                continue
            np.testing.assert_array_equal(found, array)
            assert names


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    with pytest.raises(BadSamples, match=r"a\.npz: is missing"):
        read(tmp_path / "a.npz")
    with pytest.raises(BadSamples, match="is a folder"):
        read(tmp_path)


def test_the_caller_chooses_the_error(tmp_path):
    with pytest.raises(MissingAsset), open_npz_member(tmp_path / "a.npz", error=MissingAsset):
        pass


@files
@given(data=st.data(), save=st.sampled_from([np.savez, np.savez_compressed]))
def test_no_archive_that_was_cut_short_is_read(tmp_path_factory, data, save):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    save(path, np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BadSamples):
        read(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), save=st.sampled_from([np.savez, np.savez_compressed]))
def test_no_flipped_byte_changes_what_is_read(tmp_path_factory, data, save):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    array = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
    save(path, array)
    damaged = bytearray(path.read_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(damaged))
    try:
        found = read(path)
    except BadSamples:
        return
    np.testing.assert_array_equal(found, array)

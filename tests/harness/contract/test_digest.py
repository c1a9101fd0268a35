import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.contract.digest import canonical_json, digest_json, digest_pixels, digest_sequence, is_digest, sha256_file

IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé\n"\\'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def test_the_digest_of_a_file_is_its_sha256(tmp_path):
    data = bytes(range(256)) * 9000  # more than one chunk
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_the_order_of_keys_does_not_change_a_json_digest(row):
    assert digest_json(row) == digest_json(dict(reversed(row.items())))


def test_canonical_json_refuses_nan():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_the_pixel_digest_is_the_documented_one():
    image = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    assert digest_pixels(image) == hashlib.sha256(b"2x4x3\n" + image.tobytes()).hexdigest()


@given(IMAGES)
def test_the_memory_layout_does_not_change_a_pixel_digest(image):
    assert digest_pixels(np.asfortranarray(image)) == digest_pixels(image)


@given(IMAGES)
def test_one_changed_pixel_changes_the_digest(image):
    other = image.copy()
    other[-1, -1, -1] ^= 1
    assert digest_pixels(other) != digest_pixels(image)


def test_the_shape_is_part_of_the_pixel_digest():
    flat = np.zeros(48, np.uint8)
    assert digest_pixels(flat.reshape(2, 8, 3)) != digest_pixels(flat.reshape(4, 4, 3))


@pytest.mark.parametrize("image", [np.zeros((2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.uint8)])
def test_only_one_uint8_image_has_a_pixel_digest(image):
    with pytest.raises(ValueError, match="uint8 image"):
        digest_pixels(image)


@given(st.lists(st.binary(max_size=3).map(lambda data: hashlib.sha256(data).hexdigest()), unique=True, min_size=2))
def test_a_sequence_digest_depends_on_the_order(digests):
    assert digest_sequence(digests) == hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()
    assert digest_sequence(digests) != digest_sequence(digests[::-1])


@pytest.mark.parametrize("text", ["", "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "\n", None, 7])
def test_other_text_is_no_digest(text):
    assert is_digest("a" * 64)
    assert not is_digest(text)

"""Whether two runs ended with the same bits."""

from __future__ import annotations

import torch


def assert_same_bits(a: object, b: object, where: str = "") -> None:
    """Assert that nested values are bit-equal; `where` names the place in a failure."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same_bits(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert isinstance(b, list)
        assert len(a) == len(b), where
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same_bits(one, other, f"{where}/{number}")
    else:
        assert a == b, where

"""What holds for all tests."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: the others find time beside it, and nothing waits for it alone."""
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)

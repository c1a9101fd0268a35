"""Verdicts as GenEval's own evaluation writes them, so that its summary reads them too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.contract.files import write_atomically


def write_results(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSON object per image; `metadata` and `details` are JSON text inside it, as in the original."""
    with write_atomically(path, "w") as handle:
        for row in rows:
            theirs = {name: row[name] for name in ("filename", "tag", "prompt", "correct", "reason")}
            texts = {name: json.dumps(row[name], ensure_ascii=False) for name in ("metadata", "details")}
            handle.write(json.dumps({**theirs, **texts}, ensure_ascii=False) + "\n")

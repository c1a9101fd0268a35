"""A file of finished rows that survives a kill: what a scorer has already paid for is not paid for again.

One JSON object per line, appended and flushed as it comes. A last line that a kill cut off is dropped when it is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.contract.files import PathLike, explain_disk_errors, finite


class Journal:
    """Rows by key, in a file.

    Args:
        path: the file; its rows are read when it is there.
        settings: what the rows depend on. A file with other settings is started again.
    """

    def __init__(self, path: PathLike, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.rows: dict[str, dict[str, Any]] = {}
        head = json.dumps({"settings": finite(settings)}, sort_keys=True)
        whole = self._read(head)
        with explain_disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self.path.open("r+b" if whole else "wb")
            self._handle.truncate(whole)
            self._handle.seek(whole)
            if not whole:
                self._write(head)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Keep a finished row; it has been handed to the operating system when this returns."""
        self.rows[key] = dict(finite(row))
        with explain_disk_errors(self.path):
            self._write(json.dumps({"key": key, "row": self.rows[key]}, ensure_ascii=False))

    def drop(self, key: str) -> None:
        """Forget a row, so that it is made again; the file keeps it until a new one is written."""
        self.rows.pop(key, None)

    def close(self) -> None:
        """Close the file, and keep it."""
        self._handle.close()

    def _write(self, line: str) -> None:
        self._handle.write(line.encode() + b"\n")
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def _read(self, head: str) -> int:
        """Read the rows; returns how many bytes of the file are whole lines of these settings."""
        if not self.path.is_file():
            return 0
        whole = 0
        with self.path.open("rb") as handle:
            for number, line in enumerate(handle):
                if not line.endswith(b"\n") or (number == 0 and line.decode(errors="replace").rstrip("\n") != head):
                    break
                if number:
                    entry = json.loads(line)
                    self.rows[entry["key"]] = entry["row"]
                whole += len(line)
        return whole

"""Failures of a run: losses that are not finite end it; samples that cannot be used are logged, up to a limit."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from gear.data.loader import Batch
from gear.training.processes.distributed import gather_objects, world
from gear.training.watching.metric_queue import UpdateMetrics
from harness.contract.errors import BadSamples, EnvironmentFailure
from harness.contract.files import write_json

log = logging.getLogger(__name__)

NONFINITE_FILE = "nonfinite.json"


def refuse_nonfinite(row: UpdateMetrics, out_dir: Path) -> None:
    """Raise EnvironmentFailure when a figure of this update is not finite, and write `nonfinite.json`.

    Figures are averaged over processes, so all of them find it in the same update. By then at most one more update was
    made. Neither changed weights or moments if its gradient norm was not finite, and neither is saved.
    """
    wrong = row.not_finite
    if not wrong:
        return
    ids = [index for share in gather_objects(row.ids) for index in share]
    path = out_dir / NONFINITE_FILE
    if world().is_main:
        terms = {name: str(value) for name, value in sorted(wrong.items())}
        write_json(path, {"step": row.step, "terms": terms, "batch_ids": ids})
    name = min(wrong)
    raise EnvironmentFailure(
        f"{name} is {wrong[name]} at step {row.step} (samples {ids[:8]}...); the run stopped before saving it, and "
        f"{path} lists every such term and sample. Lower a learning rate or max_grad_norm (--set stages.STAGE....) and "
        "run the same command again: it resumes from the last checkpoint."
    )


class BadSampleLog:
    """`bad_samples.jsonl`: samples that were replaced by others, each once; more than `limit` end the run.

    Each process writes and counts its own (`bad_samples.1.jsonl` and so on); the limit is per process.
    """

    def __init__(self, out_dir: Path, limit: int) -> None:
        rank = world().rank
        self.path = out_dir / ("bad_samples.jsonl" if rank == 0 else f"bad_samples.{rank}.jsonl")
        self.limit = limit
        self._known: set[str] = set()
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            self._known = {json.loads(line)["problem"] for line in lines if line.endswith("}\n")}

    def note(self, step: int, batches: Iterable[Batch]) -> None:
        """Write the new ones of update `step` (from 1). Raises BadSamples beyond the limit."""
        new = {problem for batch in batches for problem in batch.bad} - self._known
        if not new:
            return
        self._known |= new
        with self.path.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps({"step": step, "problem": problem}) + "\n" for problem in sorted(new))
        if len(self._known) > self.limit:
            raise BadSamples(
                f"{len(self._known)} samples cannot be used, more than data.max_bad_samples = {self.limit}; "
                f"{self.path} lists them. Repair the data set or raise the limit."
            )

    def report(self) -> None:
        """Say how many there were since the run began; called by all processes."""
        if total := sum(gather_objects(len(self._known))):
            log.warning("%d samples could not be used, and others took their place: %s lists them.", total, self.path)

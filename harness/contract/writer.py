"""Writes the sample set of a generator in shards, so that a kill loses one shard and the same command resumes.

    writer = SampleSetWriter(out, requests, generator={"name": "my-model", "weights": sha256})
    for shard in writer.missing():
        writer.write(shard, draw(shard.requests))       # (n, H, W, 3) uint8
    samples = writer.finish()

Several processes may write different shards of one folder, each with a writer of its own; one of them finishes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from harness.contract.assemble import CLAIM_FILE, WORK_DIR, assemble, claim, drop_work
from harness.contract.digest import canonical_json
from harness.contract.errors import BadSamples, UserError
from harness.contract.fields import Within, build
from harness.contract.files import PathLike, as_read_back, explain_disk_errors
from harness.contract.npz import NpzStreamWriter, open_npz_member
from harness.contract.progress import Progress
from harness.contract.requests import Request, RequestSet
from harness.contract.samples import FORMS, MANIFEST_FILE, Form, IndexEntry, SampleSet

_SHARD_BYTES = 64 << 20
_MAX_SHARD_IMAGES = 256
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Consecutive requests that are written together."""

    index: int
    start: int
    stop: int
    requests: Sequence[Request]

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """How a set is split into shards; a folder keeps what its first run chose."""

    shard_size: Annotated[int, Within(1)]


class SampleSetWriter:
    """Collects the images of a request set, shard by shard, into a sample set.

    Args:
        out_dir: the folder of the sample set. Finished shards of the same requests and generator are reused.
        request_set: what is being drawn.
        generator: the generator, with every option that changes a pixel, as JSON values; unfinished work is continued
            only for an equal one.
        form: "npz" or "png".
        shard_size: images per shard; by default as many as fit into 64 MiB, at most 256. A folder that already has
            shards keeps its size.
    Raises:
        UserError: the folder holds samples, or unfinished work, of other requests or another generator.
    """

    def __init__(
        self,
        out_dir: PathLike,
        request_set: RequestSet,
        generator: Mapping[str, Any],
        form: Form = "npz",
        shard_size: int | None = None,
    ) -> None:
        if form not in FORMS:
            raise UserError(f"the form of a sample set is 'npz' or 'png', not {form!r}.")
        self.out_dir = Path(out_dir)
        self.request_set = request_set
        self.generator: dict[str, Any] = as_read_back(generator, "the identity of the generator")
        self.form = form
        self.image_size = request_set.protocol.image_size
        self._finished = self._open_finished()
        self._shards: list[Shard] = []
        if self._finished is None:
            self._shards = self._plan(self._claim(shard_size or self._default_shard_size()))

    def missing(self, *, rank: int = 0, num_ranks: int = 1) -> list[Shard]:
        """The shards still to be drawn, in order; empty when the set is complete.

        With several ranks each gets its own shards, by shard number, so the split does not depend on who asks first.
        A shard that is damaged counts as missing and is removed.
        """
        if self._is_finished():
            return []
        mine = [shard for shard in self._shards if shard.index % num_ranks == rank]
        return [shard for shard in mine if not self._is_written(shard)]

    def claim(self, shard: Shard) -> bool:
        """Announce that this process will draw `shard`; false when another process has announced it before.

        For processes that take shards one after another. The process that claimed a shard may have died since: a
        claim is a hint to the others, not a lock, and drawing a shard twice does no harm.
        """
        path = self._path(shard).with_suffix(".claim")
        with explain_disk_errors(path):
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                return False
        return True

    def is_written(self, shard: Shard) -> bool:
        """Whether any process has written `shard`, or even finished the whole set."""
        return self._is_finished() or self._is_written(shard)

    def write(self, shard: Shard, images_u8: np.ndarray) -> None:
        """Store the images of a shard, (len(shard), H, W, 3) uint8 in request order, as a whole or not at all.

        Raises:
            BadSamples: another shape or dtype.
            EnvironmentFailure: the disk is full; shards written before are kept.
        """
        expected = (len(shard), self.image_size, self.image_size, 3)
        if not isinstance(images_u8, np.ndarray) or images_u8.dtype != np.uint8 or images_u8.shape != expected:
            found = f"{getattr(images_u8, 'shape', type(images_u8).__name__)} {getattr(images_u8, 'dtype', '')}".strip()
            raise BadSamples(
                f"{self.out_dir}: shard {shard.index} takes a NumPy array {expected} uint8, not {found}; "
                "correct the generator."
            )
        path = self._path(shard)
        with NpzStreamWriter(path, count=len(shard), shape_tail=expected[1:]) as writer:
            writer.append(images_u8)

    def finish(self, progress: Progress | None = None) -> SampleSet:
        """Assemble the shards, write the manifest last, and remove the shards. Called by one process only.

        Raises:
            UserError: shards are missing.
            BadSamples: a shard turned out to be damaged; it is removed, and the same command draws it again.
            EnvironmentFailure: the disk is full; all shards are kept.
        """
        if self._finished is not None:
            return self._finished
        missing = self.missing()
        if missing:
            raise UserError(
                f"{self._work}: {len(missing)} of {len(self._shards)} shards are missing (the first is "
                f"{self._path(missing[0]).name}); run the drawing command again."
            )
        self._finished = assemble(
            self.out_dir,
            form=self.form,
            image_size=self.image_size,
            entries=[IndexEntry(request.id, request.path, "", request.label) for request in self.request_set],
            batches=self._batches(),
            requests=self.request_set,
            generator=self.generator,
            progress=progress,
        )
        self._shards = []
        return self._finished

    # --- the folder --------------------------------------------------------------------------------------------------

    def _open_finished(self) -> SampleSet | None:
        """The set that an earlier run of the same command finished here; None when there is none."""
        if not (self.out_dir / MANIFEST_FILE).exists():
            return None
        samples = SampleSet.open(self.out_dir)
        if samples.request_digest != self.request_set.digest:
            raise UserError(f"{self.out_dir}: holds the samples of another request set; choose another folder.")
        if canonical_json(samples.generator) != canonical_json(self.generator):
            raise UserError(
                f"{self.out_dir}: holds samples of another generator or of other options; choose another folder."
            )
        if samples.form != self.form:
            raise UserError(
                f"{self.out_dir}: holds these samples in the form {samples.form}; "
                f"run python -m harness.contract convert {self.out_dir} OUT --form {self.form}"
            )
        drop_work(self.out_dir)
        return samples

    def _claim(self, shard_size: int) -> int:
        """Claim the work folder and return the shard size in force there."""
        owner = {"request_digest": self.request_set.digest, "generator": self.generator}
        settings = claim(
            self.out_dir, owner, asdict(_Settings(shard_size=shard_size)), "of this request set and this generator"
        )
        return build(_Settings, settings, str(self._work / CLAIM_FILE), path="settings").shard_size

    def _default_shard_size(self) -> int:
        return max(1, min(_MAX_SHARD_IMAGES, _SHARD_BYTES // (self.image_size**2 * 3)))

    def _plan(self, size: int) -> list[Shard]:
        requests = self.request_set.requests
        starts = range(0, len(requests), size)
        return [
            Shard(index=i, start=start, stop=min(start + size, len(requests)), requests=requests[start : start + size])
            for i, start in enumerate(starts)
        ]

    def _is_finished(self) -> bool:
        """Whether this process or another one has assembled the set."""
        return (self.out_dir / MANIFEST_FILE).exists()

    @property
    def _work(self) -> Path:
        return self.out_dir / WORK_DIR

    def _path(self, shard: Shard) -> Path:
        return self._work / f"shard-{shard.index:05d}.npz"

    def _is_written(self, shard: Shard) -> bool:
        path = self._path(shard)
        if not path.exists():
            return False
        try:
            with open_npz_member(path) as member:
                is_whole = (
                    member.shape == (len(shard), self.image_size, self.image_size, 3) and member.dtype == np.uint8
                )
        except BadSamples:
            is_whole = False
        if not is_whole:
            path.unlink(missing_ok=True)
        return is_whole

    def _batches(self) -> Iterator[np.ndarray]:
        for shard in self._shards:
            try:
                with open_npz_member(self._path(shard)) as member:
                    yield from member.batches(_BATCH)
            except BadSamples as damage:
                self._path(shard).unlink(missing_ok=True)
                raise BadSamples(
                    f"{self._path(shard)}: was damaged after it was written and has been removed; "
                    "run the same command again, which draws only this shard."
                ) from damage

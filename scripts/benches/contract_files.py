"""Measures time and peak memory of every operation on sample sets, each in its own process.

    python -m scripts.benches.contract_files --count 5000 --size 512

needs about three times the size of the pixels on disk (12 GB for the numbers above) and frees it afterwards.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.contract.adopt import convert, sample_set_from_folder, sample_set_from_npz
from harness.contract.requests import RequestSet, SamplingProtocol, class_requests
from harness.contract.samples import SampleSet
from harness.contract.writer import SampleSetWriter


def main() -> None:
    """Print one line per operation: seconds, megabytes of pixels per second, and peak resident memory."""
    parser = argparse.ArgumentParser(prog="python -m scripts.benches.contract_files", description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="images (default 5000)")
    parser.add_argument("--size", type=int, default=512, help="their side in pixels (default 512)")
    parser.add_argument(
        "--folder", type=Path, help="where the files are written while it runs (default: the temporary folder)"
    )
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(measure(arguments.step, arguments.folder, arguments.count, arguments.size)))
        return
    megabytes = arguments.count * arguments.size**2 * 3 / 1e6
    print(f"{arguments.count} images of {arguments.size} px, {megabytes:.0f} MB of pixels")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for step in STEPS:
            seconds, peak_mb = run_step(step, Path(folder), arguments.count, arguments.size)
            print(f"{step:>18}  {seconds:7.1f} s  {megabytes / seconds:6.0f} MB/s  peak {peak_mb:5.0f} MB", flush=True)


def run_step(step: str, folder: Path, count: int, size: int) -> tuple[float, float]:
    """Run one operation in a fresh process and return (seconds, peak memory in MB)."""
    command = [sys.executable, "-m", "scripts.benches.contract_files", "--step", step, "--folder", str(folder)]
    finished = subprocess.run(
        [*command, "--count", str(count), "--size", str(size)], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds, peak_mb = json.loads(finished.stdout)
    return seconds, peak_mb


def measure(step: str, folder: Path, count: int, size: int) -> tuple[float, float]:
    """Run one operation here and return (seconds, peak memory of this process in MB)."""
    requests = class_requests("bench", 1, SamplingProtocol(image_size=size), count=count, num_classes=1000)
    started = time.monotonic()
    STEPS[step](folder, requests)
    return time.monotonic() - started, peak_memory_mb()


def peak_memory_mb() -> float:
    """The most resident memory this process ever had, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would count what the parent held when it forked.
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _write_shards(folder: Path, requests: RequestSet) -> None:
    size = requests.protocol.image_size
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 240, (8, 8, 3)), np.ones((size // 8 + 1, size // 8 + 1, 1), np.int64))[
        :size, :size
    ]
    picture_u8 = (picture + rng.integers(0, 16, picture.shape)).astype(np.uint8)
    writer = SampleSetWriter(folder / "npz", requests, {"name": "bench"})
    for shard in writer.missing():
        writer.write(shard, np.stack([np.roll(picture_u8, shard.start + i, axis=1) for i in range(len(shard))]))


def _finish(folder: Path, requests: RequestSet) -> None:
    SampleSetWriter(folder / "npz", requests, {"name": "bench"}).finish()


def _validate(folder: Path, requests: RequestSet) -> None:
    SampleSet.open(folder / "npz").validate()


def _to_png(folder: Path, requests: RequestSet) -> None:
    convert(folder / "npz", folder / "png", "png")


def _to_npz(folder: Path, requests: RequestSet) -> None:
    convert(folder / "png", folder / "again", "npz")
    _drop(folder / "again")


def _adopt_npz(folder: Path, requests: RequestSet) -> None:
    sample_set_from_npz(folder / "npz" / "samples.npz", folder / "from-npz")
    _drop(folder / "from-npz")


def _adopt_folder(folder: Path, requests: RequestSet) -> None:
    sample_set_from_folder(folder / "png" / "images", folder / "from-folder", requests=requests)
    _drop(folder / "from-folder")


def _drop(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


STEPS: dict[str, Callable[[Path, RequestSet], None]] = {
    "write shards": _write_shards,
    "finish": _finish,
    "validate": _validate,
    "NPZ to PNG": _to_png,
    "PNG to NPZ": _to_npz,
    "adopt an NPZ": _adopt_npz,
    "adopt a folder": _adopt_folder,
}

if __name__ == "__main__":
    main()

"""Which of PyTorch's CUDA builds this machine's driver can run, and a lock for that build.

Locks pin PyTorch as PyPI has it, built for CUDA 13. Its makers build the same version for CUDA 12.6, too, for older
drivers and for GPUs before Turing (pytorch/pytorch issues 178665 and 190355); NVIDIA's table of minor version
compatibility gives the oldest driver of each CUDA. The lock is the one input for both: PyTorch's family moves to the
other build, uv finds the CUDA libraries again, and everything else stays as pinned.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import EnvironmentFailure, UserError
from harness.contract.files import write_atomically

VARIABLE = "HARNESS_CUDA"
INDEX_VARIABLE = "HARNESS_TORCH_INDEX"
INDEX = "https://download.pytorch.org/whl"

_QUERY = ("--query-gpu=driver_version,compute_cap", "--format=csv,noheader")
_ANSWERS_WITHIN_S = 30
_FAMILY = ("torch", "torchvision", "torchaudio")
_FOUND_AGAIN = re.compile(r"(nvidia|cuda)-[a-z0-9-]+|triton")
"""What PyTorch's builds need in other versions, or under other names."""
_ONE_CUDA = frozenset({"vllm"})
"""Packages with kernels of their own that PyPI has for the locks' CUDA only."""
_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)\s*(;[^\\]*)?", re.MULTILINE | re.IGNORECASE)
_ON_THE_CPU = "to compute on the CPU: export CUDA_VISIBLE_DEVICES="


@dataclass(frozen=True, kw_only=True)
class Cuda:
    """A CUDA that PyTorch is built for."""

    version: str
    driver: int
    """The oldest series of NVIDIA's driver that runs it."""
    oldest: tuple[int, int]
    """Compute capability of the oldest GPUs that the build has kernels for."""
    newest: tuple[int, int] | None = None
    """Of the newest; None: there is no limit yet."""
    image: str
    """Tag of the image `nvidia/cuda` that the build's own image is based on."""

    @property
    def tag(self) -> str:
        """As wheels and indices name it: cu126."""
        return f"cu{self.version.replace('.', '')}"

    def runs_on(self, gpu: Gpu) -> bool:
        """Whether the driver is new enough, and the GPU is neither too old nor too new."""
        if gpu.driver[0] < self.driver:
            return False
        if gpu.capability is None:
            return True
        return self.oldest <= gpu.capability and (self.newest is None or gpu.capability <= self.newest)


LOCKED = Cuda(version="13.0", driver=580, oldest=(7, 5), image="13.0.1")
"""What PyPI has, and so what the locks pin."""
CUDAS = (LOCKED, Cuda(version="12.6", driver=525, oldest=(5, 0), newest=(9, 0), image="12.6.3"))
"""The preferred one first."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What nvidia-smi says of a GPU."""

    driver: tuple[int, ...]
    capability: tuple[int, int] | None = None
    """Compute capability; None: the driver is too old to tell."""

    @property
    def driver_version(self) -> str:
        """Such as "550.54.15"."""
        return ".".join(f"{part:02d}" if place else str(part) for place, part in enumerate(self.driver))


# --- choosing --------------------------------------------------------------------------------------------------------


def read_gpus(answer: str) -> list[Gpu]:
    """The GPUs in an answer of nvidia-smi: of the query for driver and capability, or of the plain table, whose head
    alone is read."""
    rows = re.findall(r"^\s*(\d+(?:\.\d+)+)\s*,\s*(\d+)\.(\d+)\s*$", answer, re.MULTILINE)
    if rows:
        return [Gpu(driver=_numbers(driver), capability=(int(major), int(minor))) for driver, major, minor in rows]
    head = re.search(r"Driver Version:\s*(\d+(?:\.\d+)+)", answer)
    return [Gpu(driver=_numbers(head[1]))] if head else []


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def choose(gpus: Sequence[Gpu]) -> Cuda | None:
    """The preferred CUDA that all the GPUs can run; None without GPUs.

    Raises:
        EnvironmentFailure: there is none, with the driver that is needed.
    """
    if not gpus:
        return None
    for cuda in CUDAS:
        if all(map(cuda.runs_on, gpus)):
            return cuda
    gpu = min(gpus, key=lambda one: (one.driver, one.capability or (0, 0)))
    needed = " or ".join(f"{cuda.driver} (CUDA {cuda.version})" for cuda in reversed(CUDAS))
    kind = "" if gpu.capability is None else f", GPUs of compute capability {_capabilities(gpus)}"
    raise EnvironmentFailure(
        f"No build of PyTorch fits this machine's GPUs: its NVIDIA driver is {gpu.driver_version}{kind}, and PyTorch "
        f"needs driver {needed} or newer and a GPU that the build knows; install a newer driver, or {_ON_THE_CPU}"
    )


def _capabilities(gpus: Sequence[Gpu]) -> str:
    found = sorted({gpu.capability for gpu in gpus if gpu.capability})
    return " and ".join(f"{major}.{minor}" for major, minor in found)


def chosen_cuda() -> Cuda | None:
    """The CUDA of HARNESS_CUDA, else of this machine's GPUs; None: there are none to use.

    Raises:
        UserError: HARNESS_CUDA names none that PyTorch is built for.
        EnvironmentFailure: no build fits the GPUs.
    """
    said = os.environ.get(VARIABLE)
    if said:
        known = {cuda.version: cuda for cuda in CUDAS} | {"13": LOCKED, "12": CUDAS[1]}
        if said not in known:
            raise UserError(f"{VARIABLE}={said}: give {' or '.join(cuda.version for cuda in CUDAS)}, or unset it.")
        return known[said]
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    return choose(find_gpus())


@functools.lru_cache(maxsize=1)
def find_gpus() -> tuple[Gpu, ...]:
    """This machine's GPUs; none where nvidia-smi is missing or does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    for arguments in (_QUERY, ()):  # drivers before 510 do not know the capability
        try:
            answer = subprocess.run(
                [tool, *arguments], capture_output=True, text=True, timeout=_ANSWERS_WITHIN_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ()
        if answer.returncode == 0 and (gpus := read_gpus(answer.stdout)):
            return tuple(gpus)
    return ()


def own_torch() -> Cuda | None:
    """The CUDA of the PyTorch beside the harness; None: there is none, or it is for CPUs."""
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None
    local = version.partition("+")[2]
    if not local:
        return LOCKED
    return next((cuda for cuda in CUDAS if local.startswith(cuda.tag[:4])), None)


def own_torch_problem() -> str:
    """A sentence with the fix where the PyTorch beside the harness cannot use this machine's GPUs; else "".

    Raises EnvironmentFailure when no build of PyTorch could.
    """
    gpus, own, best = find_gpus(), own_torch(), chosen_cuda()
    if own is None or best is None or own == best or all(map(own.runs_on, gpus)):
        return ""
    driver = gpus[0].driver_version if gpus else "as HARNESS_CUDA says"
    return (
        f"PyTorch is installed here for CUDA {own.version}, which this machine's GPUs (driver {driver}) cannot run, "
        f"and it would compute on the CPU; install it for CUDA {best.version}: make setup CUDA={best.version}   or, "
        f"{_ON_THE_CPU}"
    )


# --- locks -----------------------------------------------------------------------------------------------------------


def pins_torch(lock: Path) -> bool:
    """Whether a lock file pins PyTorch as PyPI has it."""
    return any(name == "torch" and "+" not in version for name, version, _ in _PIN.findall(lock.read_text("utf-8")))


def other_cuda(lock: Path) -> Cuda | None:
    """The CUDA that a lock has to be resolved for on this machine; None: it can be used as it is.

    Raises EnvironmentFailure when it pins PyTorch and no build fits the GPUs.
    """
    if not pins_torch(lock):
        return None
    cuda = chosen_cuda()
    if cuda in (None, LOCKED):
        return None
    if compiled := _ONE_CUDA & {name.lower() for name, _, _ in _PIN.findall(lock.read_text("utf-8"))}:
        raise EnvironmentFailure(
            f"{lock}: pins {', '.join(compiled)}, which is built for CUDA {LOCKED.version} alone, but this machine's "
            f"driver runs CUDA {cuda.version}; install driver {LOCKED.driver} or newer."
        )
    return cuda


def project_for(lock: str, cuda: Cuda) -> str:
    """A pyproject.toml whose resolution is the lock with PyTorch built for another CUDA.

    Only PyTorch's own packages may come from its index, which holds old versions of others.
    """
    pins = [(name.lower(), version, marker.strip()) for name, version, marker in _PIN.findall(lock)]
    kept = [pin for pin in pins if not _FOUND_AGAIN.fullmatch(pin[0])]
    builds = dict.fromkeys(_FAMILY, f"+{cuda.tag}")
    rows = [f"{name}=={version}{builds.get(name, '')} {marker}".strip() for name, version, marker in kept]
    family = [name for name, _, _ in kept if name in _FAMILY]
    return "\n".join(
        [
            '[project]\nname = "environment"\nversion = "0"\nrequires-python = ">=3.10"',
            f"dependencies = [{', '.join(map(_quoted, rows))}]",
            f'[[tool.uv.index]]\nname = "pytorch"\nurl = {_quoted(index_of(cuda))}\nexplicit = true',
            "[tool.uv.sources]",
            *(f'{name} = {{ index = "pytorch" }}' for name in family),
            "",
        ]
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", '"') + "'"


def index_of(cuda: Cuda) -> str:
    """Where wheels of that build are; HARNESS_TORCH_INDEX names a mirror of https://download.pytorch.org/whl."""
    return f"{os.environ.get(INDEX_VARIABLE, INDEX).rstrip('/')}/{cuda.tag}"


def install_options(cuda: Cuda) -> list[str]:
    """What `uv pip sync` needs besides a resolved lock, whose hashes say which file is meant."""
    return ["--index", index_of(cuda), "--index-strategy", "unsafe-best-match"]


def resolved(lock: Path, cuda: Cuda, python: str | None, folder: Path, uv: Callable[[list[str]], None]) -> Path:
    """The lock for another CUDA, resolved once and kept.

    Args:
        lock: the lock file.
        cuda: what PyTorch is to be built for.
        python: version that it is for; None: any.
        folder: where resolved locks are kept.
        uv: runs uv with these arguments, and raises when that fails.
    """
    name = f"{digest_json([sha256_file(lock), cuda.tag, python])[:16]}-{cuda.tag}"
    target = folder / f"{name}.lock"
    if not target.is_file():
        source = folder / name / "pyproject.toml"
        source.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(source, "w") as handle:
            handle.write(project_for(lock.read_text("utf-8"), cuda))
        unfinished = source.parent / "requirements.lock"
        what_for = ["--python-version", python] if python else ["--universal", "--python-version", "3.11"]
        words = ["pip", "compile", str(source), "--generate-hashes", "--no-header", "--no-annotate", *what_for]
        uv([*words, "--output-file", str(unfinished)])
        unfinished.replace(target)
    return target


def main(arguments: Sequence[str]) -> None:
    """`python -m harness.runtimes.cuda LOCK`: this environment's packages as the lock has them, for the chosen CUDA."""
    import uv

    def run(words: list[str]) -> None:
        subprocess.run([uv.find_uv_bin(), *words], check=True)

    (lock,), cuda = map(Path, arguments), chosen_cuda()
    if cuda in (None, LOCKED):
        return
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    made = resolved(lock, cuda, python, Path(sys.prefix) / "locks", run)
    here = ["--python", sys.executable, "--no-deps", "--require-hashes", *install_options(cuda)]
    run(["pip", "install", *here, "-r", str(made)])


if __name__ == "__main__":
    main(sys.argv[1:])

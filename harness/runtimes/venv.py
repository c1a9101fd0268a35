"""Runs steps in virtual environments: one per lock file, made by uv, named by the digest of the lock.

The default where there is no container engine. Isolation is that of a clean process environment: no user site, no
settings of the shell beyond a short list, home and caches in a scratch folder. It is not a sandbox.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uv

from harness.catalog.project import PACKAGE_DIR, Project, importable_from
from harness.contract.digest import digest_json, sha256_file
from harness.contract.errors import EnvironmentFailure
from harness.contract.files import is_writable, write_json
from harness.contract.walk import walk
from harness.planning.steps import Environment, Step
from harness.runtimes import Check, OnLine, Outcome, Places, RuntimeOptions, Say, fill_in
from harness.runtimes.cuda import (
    LOCKED,
    Cuda,
    chosen_cuda,
    find_gpus,
    install_options,
    other_cuda,
    own_torch_problem,
    resolved,
)
from harness.runtimes.installer import run_uv
from harness.runtimes.process import run_process
from harness.runtimes.watchdog import OWNER, OWNER_VARIABLE, WORK_VARIABLE, end_leftovers, watched
from harness.store import lease
from harness.store.folders import discard, publish_folder

KEPT_VARIABLES = frozenset(
    {
        "PATH",
        "LANG",
        "TZ",
        "USER",
        "LOGNAME",
        "LD_LIBRARY_PATH",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "CUDA_VISIBLE_DEVICES",
    }
)
KEPT_PREFIXES = (
    "LC_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "CUDA_",
    "NVIDIA_",
    "NCCL_",
    "TORCH_",
    "PYTORCH_",
    "TF_NUM_",
    "TF_FORCE_",
    "XLA_",
)
"""What a step sees of the shell: machine and numerics, never credentials. TORCH_HOME is set to scratch regardless."""
SERVICE_PREFIX = "HARNESS_JUDGE_"
"""These too, when it asks a service."""
NETWORK_PREFIXES = ("HTTP", "NO_PROXY", "ALL_PROXY", "http", "no_proxy", "all_proxy", SERVICE_PREFIX)
"""These too, when it declares a network."""
SHOWN_OF_NETWORK = frozenset(
    f"HARNESS_JUDGE_{name}"
    for name in ("URL", "MODEL", "PROGRAM", "FLAGS", "CONCURRENCY", "TIMEOUT_S", "RETRIES", "BACKOFF_S")
)
"""Whose values of those are shown in command lines; of the others only the names, for they may hold secrets."""

_MARKER = ".harness.json"


class VenvRuntime:
    """Virtual environments under `<home>/envs`."""

    name = "venv"

    def __init__(self, project: Project, home: Path, options: RuntimeOptions | None = None) -> None:
        self.project = project
        self.home = home

    # --- environments ------------------------------------------------------------------------------------------------

    def environment_digest(self, environment: Environment) -> str:
        """Lock file, Python version, and the code that is copied out."""
        code = self.project.code_digest(environment.code) if environment.code else None
        lock = None if environment.lock is None else self._lock_digest(environment)
        beside = {"beside": self.environment_digest(environment.beside)} if environment.beside else {}
        return digest_json({"runtime": self.name, "lock": lock, "code": code, **beside})

    def is_ready(self, environment: Environment) -> bool:
        """Whether the environment was built completely."""
        if environment.beside and not self.is_ready(environment.beside):
            return False
        return environment.lock is None or (self._folder(environment) / _MARKER).is_file()

    def prepare(self, environment: Environment, say: Say) -> None:
        """Make the environment with uv, unless it is there; of two harnesses at once, one waits."""
        if environment.code and is_writable(self.home):  # so that a home that is prepared may be read-only afterwards
            self.project.stage_code(environment.code, self.home)
        if environment.beside:
            self.prepare(environment.beside, say)
        if self.is_ready(environment):
            return
        folder = self._folder(environment)
        if not is_writable(self.home):
            raise EnvironmentFailure(
                f"{folder}: is not there and cannot be built, since this user may not write to {self.home}; let its "
                f"owner type: harness prepare {environment.name}      or use another: export HARNESS_HOME=DIR"
            )
        waiting = lambda holder: say(f"waiting for {holder}, which is building {environment.name}")  # noqa: E731
        with lease.held(self.home / "leases" / folder.name, on_wait=waiting):
            if not self.is_ready(environment):
                say(f"building the environment '{environment.name}' (once; kept under {folder})")
                discard(folder)
                publish_folder(folder, lambda temporary: self._build(environment, temporary))

    def describe(self, environment: Environment) -> dict[str, Any]:
        """Runtime, Python, and the lock's digest."""
        row: dict[str, Any] = {"runtime": self.name, "python": _python_version(environment)}
        if environment.lock is not None:
            row["lock"] = environment.lock
            row["lock_sha256"] = sha256_file(self.project.path(environment.lock))
            if cuda := self._cuda(environment):
                row["cuda"] = cuda.version
        if environment.beside:
            row["beside"] = self.describe(environment.beside)
        return row

    def _cuda(self, environment: Environment) -> Cuda | None:
        """The CUDA that the lock is resolved for, where it cannot be used as it is."""
        return None if environment.lock is None else other_cuda(self.project.path(environment.lock))

    def python(self, environment: Environment) -> str:
        """The interpreter, once the environment is prepared."""
        return sys.executable if environment.lock is None else str(self._folder(environment) / "bin" / "python")

    def _folder(self, environment: Environment) -> Path:
        return self.home / "envs" / f"{environment.name}-{self._lock_digest(environment)[:16]}"

    def _lock_digest(self, environment: Environment) -> str:
        assert environment.lock is not None
        cuda = self._cuda(environment)
        parts = [sha256_file(self.project.path(environment.lock)), _python_version(environment)]
        return digest_json([*parts, cuda.tag] if cuda else parts)

    def _build(self, environment: Environment, folder: Path) -> None:
        assert environment.lock is not None
        log = self.home / "logs" / f"build-{environment.name}.log"
        python = environment.python or sys.executable
        lock = self.project.path(environment.lock)
        # Relocatable, since the folder is renamed after the build.
        run_uv(["venv", "--relocatable", "--allow-existing", "--python", python, str(folder)], log, environment)
        interpreter = str(folder / "bin" / "python")
        words, made = ["pip", "sync", "--require-hashes", "--python", interpreter], lock
        if cuda := self._cuda(environment):
            python = _python_version(environment)
            made = resolved(lock, cuda, python, self.home / "locks", lambda argv: run_uv(argv, log, environment))
            words += install_options(cuda)
        run_uv([*words, str(made)], log, environment)
        write_json(folder / _MARKER, {"lock": environment.lock, "lock_sha256": sha256_file(lock)})

    # --- running -----------------------------------------------------------------------------------------------------

    def command(self, step: Step, places: Places) -> list[str]:
        """`env -i NAME=VALUE ... PYTHON SCRIPT ...`, with host paths."""
        variables = sorted(self._variables(step, places).items())
        settings = [f"{name}={value if is_shown(name) else f'${name}'}" for name, value in variables]
        cwd = ["--chdir", str(self._cwd(step, places))]
        prefix = ["env"] if step.environment.inherits else ["env", "-i"]
        return [*prefix, *cwd, *settings, *self._argv(step, places)]

    def run(self, step: Step, places: Places, on_line: OnLine, stopped: Callable[[], bool]) -> Outcome:
        """Run the step as a process of this machine."""
        ours = step.environment.lock is None and not step.environment.inherits
        if places.gpus and ours and (problem := own_torch_problem()):
            raise EnvironmentFailure(f"{step.name}: {problem}")
        self._lay_out_inputs(places)
        if step.environment.code:
            self.project.stage_code(step.environment.code, self._code_home(step.environment, places))
        places.scratch.joinpath("tmp").mkdir(parents=True, exist_ok=True)
        shell = os.environ if step.environment.inherits else {}
        with watched(places.work):
            outcome = run_process(
                self._argv(step, places),
                env={**shell, **self._variables(step, places), OWNER_VARIABLE: OWNER},
                cwd=self._cwd(step, places),
                on_line=on_line,
                stopped=stopped,
                timeout_s=step.resources.timeout_s,
            )
        if step.has_service:  # which has a process group of its own, and outlives a command that had to be killed
            end_leftovers(places.work, OWNER)
        return outcome

    def clear(self, places: Places) -> None:
        """End what a killed harness left running."""
        end_leftovers(places.work)

    def checks(self) -> list[Check]:
        """uv, and which of PyTorch's builds the driver gets."""
        version = subprocess.run([uv.find_uv_bin(), "--version"], capture_output=True, text=True, check=False)
        ok = version.returncode == 0
        fix = "" if ok else "pip install uv"
        return [Check(name="uv", ok=ok, detail=(version.stdout or version.stderr).strip(), fix=fix), _cuda_check()]

    def _argv(self, step: Step, places: Places) -> list[str]:
        environment = step.environment
        values = {"python": self.python(environment), "in": str(_inputs_dir(places)), "out": str(places.output)}
        code = self._code_dir(environment, places)
        return fill_in(step.argv, {**values, "scratch": str(places.scratch), "code": code})

    def _code_dir(self, environment: Environment, places: Places) -> str:
        if not environment.code:
            return str(self.project.package_parent)
        return str(self.project.staged(environment.code, self._code_home(environment, places)))

    def _code_home(self, environment: Environment, places: Places) -> Path:
        """Usually the home; the step's own folder where nobody staged the code in a home that cannot be written."""
        there = self.project.staged(environment.code, self.home).exists()
        return self.home if there or is_writable(self.home) else places.work

    def _cwd(self, step: Step, places: Places) -> Path:
        return Path(step.cwd) if step.cwd else places.scratch

    def _variables(self, step: Step, places: Places) -> dict[str, str]:
        variables = {} if step.environment.inherits else self._clean_variables(step, places)
        variables[WORK_VARIABLE] = str(places.work)
        if step.resources.gpus and places.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(places.gpus)
        return variables

    def _clean_variables(self, step: Step, places: Places) -> dict[str, str]:
        others = NETWORK_PREFIXES if step.resources.network else (SERVICE_PREFIX,) if step.has_service else ()
        prefixes = KEPT_PREFIXES + others
        kept = {
            name: value for name, value in os.environ.items() if name in KEPT_VARIABLES or name.startswith(prefixes)
        }
        scratch = str(places.scratch)
        variables = {**kept, **scratch_variables(scratch), "TMPDIR": f"{scratch}/tmp"}
        if step.environment.beside:
            # First: the shell may have another build of the same program.
            programs = str(self._folder(step.environment.beside) / "bin")
            variables["PATH"] = os.pathsep.join(filter(None, (programs, variables.get("PATH"))))
        if step.environment.code:
            variables["PYTHONPATH"] = self._code_dir(step.environment, places)
        elif python_path := importable_from(PACKAGE_DIR.parent):
            variables["PYTHONPATH"] = python_path
        return variables

    def _lay_out_inputs(self, places: Places) -> None:
        """Make `{in}`: a folder of links to the inputs, by name."""
        shutil.rmtree(_inputs_dir(places), ignore_errors=True)
        _inputs_dir(places).mkdir(parents=True)
        for name, source in places.inputs.items():
            target = _inputs_dir(places) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name.startswith("assets/"):
                _link_tree(source.resolve(), target)
            else:
                target.symlink_to(source.resolve())


def is_shown(name: str) -> bool:
    """Whether the value of an environment variable of a step may be shown."""
    return name in SHOWN_OF_NETWORK or not name.startswith(NETWORK_PREFIXES)


def scratch_variables(scratch: str) -> dict[str, str]:
    """Variables that point home and caches to scratch, isolate Python, and keep the hub libraries offline."""
    return {
        "HOME": scratch,
        "XDG_CACHE_HOME": f"{scratch}/cache",
        "MPLCONFIGDIR": f"{scratch}/cache/matplotlib",
        "TORCH_HOME": f"{scratch}/cache/torch",
        "HF_HOME": f"{scratch}/cache/huggingface",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        # Threads that wait for each other sleep instead of spinning: on a shared machine this makes a step several
        # times faster (a training step with two threads on two busy cores: 1.0 s instead of 3.7 to 8.1 s).
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_THREAD_TIMEOUT": "4",  # the same for NumPy's library: log2 of the cycles it spins
    }


def _cuda_check() -> Check:
    """Which of PyTorch's builds environments get, and whether the PyTorch beside the harness can use the GPUs."""
    gpus = find_gpus()
    driver = f"NVIDIA driver {gpus[0].driver_version}" if gpus else "no NVIDIA driver answers"
    try:
        chosen, problem = chosen_cuda() or LOCKED, own_torch_problem()
    except EnvironmentFailure as error:
        return Check(name="cuda", ok=False, detail=str(error), required=False)
    detail = f"{driver}; environments get PyTorch for CUDA {chosen.version}"
    return Check(name="cuda", ok=not problem, detail=detail, fix=problem, required=False)


def _inputs_dir(places: Places) -> Path:
    return places.work / "in"


def _link_tree(source: Path, target: Path) -> None:
    """Put a file or folder at `target` without symbolic links, which `harness.contract` refuses in asset folders."""
    if source.is_dir():
        target.mkdir()
        for name in walk(source):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            _link_tree((source / name).resolve(), target / name)
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _python_version(environment: Environment) -> str:
    return environment.python or f"{sys.version_info.major}.{sys.version_info.minor}"

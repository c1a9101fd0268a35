"""Which of PyTorch's builds a driver gets, by recorded answers of nvidia-smi; and a lock for the other one, resolved by
uv from an index on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import uv

from harness.contract.errors import EnvironmentFailure, UserError
from harness.planning.steps import Environment, Resources, Step
from harness.runtimes import Places, cuda
from harness.runtimes.cuda import (
    CUDAS,
    LOCKED,
    choose,
    chosen_cuda,
    own_torch_problem,
    pins_torch,
    project_for,
    read_gpus,
)
from harness.runtimes.image import fill_context, image_digest
from harness.runtimes.venv import VenvRuntime

OLD_TABLE = """Tue Nov 18 10:12:44 2025
+-----------------------------------------------------------------------------+
| NVIDIA-SMI 470.256.02   Driver Version: 470.256.02   CUDA Version: 11.4     |
|-------------------------------+----------------------+----------------------+
| GPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |
"""
NEW_TABLE = """Tue Nov 18 10:12:44 2025
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|-----------------------------------------+------------------------+----------------------+
"""
UNKNOWN_FIELD = 'Field "compute_cap" is not a valid field to query.\n\n'
UNREACHABLE = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n\n"
)


@pytest.mark.parametrize(
    ("answer", "driver", "version"),
    [
        ("535.183.01, 8.0\n", "535.183.01", "12.6"),
        ("550.54.15, 9.0\n550.54.15, 9.0\n", "550.54.15", "12.6"),
        ("560.35.03, 8.6\n", "560.35.03", "12.6"),
        ("580.65.06, 9.0\n", "580.65.06", "13.0"),
        ("580.95.05, 12.0\n", "580.95.05", "13.0"),
        ("580.65.06, 7.0\n", "580.65.06", "12.6"),  # a V100: CUDA 13 has no kernels for it
        ("590.44.01, 7.5\n", "590.44.01", "13.0"),
        (NEW_TABLE, "550.54.15", "12.6"),
    ],
)
def test_the_driver_and_the_gpus_decide(answer: str, driver: str, version: str) -> None:
    gpus = read_gpus(answer)
    chosen = choose(gpus)
    assert chosen is not None and (gpus[0].driver_version, chosen.version) == (driver, version)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            OLD_TABLE,
            r"driver is 470\.256\.02, and PyTorch needs driver 525 \(CUDA 12\.6\) or 580 \(CUDA 13\.0\) or newer",
        ),
        ("570.133.20, 12.0\n", r"driver is 570\.133\.20, GPUs of compute capability 12\.0"),  # Blackwell needs CUDA 13
        ("580.65.06, 7.0\n580.65.06, 12.0\n", "7.0 and 12.0"),
    ],
)
def test_what_fits_no_build_is_one_sentence_with_the_way_out(answer: str, sentence: str) -> None:
    with pytest.raises(EnvironmentFailure, match=sentence) as caught:
        choose(read_gpus(answer))
    assert "CUDA_VISIBLE_DEVICES=" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("answer", ["", UNKNOWN_FIELD, UNREACHABLE, "No devices were found\n"])
def test_without_an_answer_there_are_no_gpus(answer: str) -> None:
    assert read_gpus(answer) == [] and choose([]) is None


# --- this machine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on PATH for an nvidia-smi that gives recorded answers."""
    for name in (cuda.VARIABLE, cuda.INDEX_VARIABLE, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "driver"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    cuda.find_gpus.cache_clear()
    yield folder / "nvidia-smi"
    cuda.find_gpus.cache_clear()


def answers(smi: Path, query: str, table: str = "", *, query_status: int = 0) -> None:
    (smi.parent / "query").write_text(query)
    (smi.parent / "table").write_text(table)
    asked = f'if [ $# -gt 0 ]; then cat "{smi.parent}/query"; exit {query_status}; fi'
    smi.write_text(f'#!/bin/sh\n{asked}\ncat "{smi.parent}/table"\n')
    smi.chmod(0o755)


def test_an_old_driver_is_asked_again_without_the_capability(smi: Path) -> None:
    answers(smi, UNKNOWN_FIELD, OLD_TABLE, query_status=2)
    assert [gpu.driver_version for gpu in cuda.find_gpus()] == ["470.256.02"]
    with pytest.raises(EnvironmentFailure, match=r"470\.256\.02"):
        chosen_cuda()


def test_the_user_has_the_last_word(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(smi, "550.54.15, 9.0\n")
    assert chosen_cuda() == CUDAS[1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert chosen_cuda() is None
    monkeypatch.setenv(cuda.VARIABLE, "13.0")
    assert chosen_cuda() == LOCKED
    monkeypatch.setenv(cuda.VARIABLE, "11.8")
    with pytest.raises(UserError, match=r"HARNESS_CUDA=11\.8: give 13\.0 or 12\.6"):
        chosen_cuda()


def test_a_pytorch_that_cannot_use_the_gpus_is_said_with_the_command(smi: Path) -> None:
    answers(smi, "550.54.15, 9.0\n")
    assert "make setup CUDA=12.6" in own_torch_problem() and "550.54.15" in own_torch_problem()
    cuda.find_gpus.cache_clear()
    answers(smi, "580.65.06, 9.0\n")
    assert own_torch_problem() == ""


# --- a lock for the other build --------------------------------------------------------------------------------------

LOCK = """filelock==3.0 \\
    --hash=sha256:aaaa
nvidia-cublas==13.1.1.3 ; sys_platform == 'linux' \\
    --hash=sha256:bbbb
cuda-toolkit==13.0.3.0 \\
    --hash=sha256:cccc
torch==2.13.0 \\
    --hash=sha256:dddd
triton==3.7.1 \\
    --hash=sha256:eeee
"""


def wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """A wheel with nothing but its metadata and an empty module."""
    stem = f"{name.replace('-', '_')}-{version}"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name.replace('-', '_')}.py": f"VERSION = '{version}'\n",
        f"{stem}.dist-info/METADATA": head + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{stem}.dist-info/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{stem}.dist-info/RECORD"])
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place / f"{stem}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    links = [
        f'<a href="{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">{path.name}</a>'
        for path in sorted(place.glob("*.whl"))
    ]
    (place / "index.html").write_text("<!DOCTYPE html><html><body>" + "\n".join(links) + "</body></html>")


@pytest.fixture
def indices(tmp_path: Path) -> Iterator[str]:
    """The address of a server with `pypi`, as a lock has it, and `whl/cu126`, whose filelock is a trap."""
    pypi, others = tmp_path / "www" / "pypi", tmp_path / "www" / "whl" / "cu126"
    wheel(pypi, "filelock", "3.0")
    wheel(pypi, "torch", "2.13.0", "nvidia-cublas==13.1.1.3")
    wheel(pypi, "nvidia-cublas", "13.1.1.3")
    wheel(pypi, "nvidia-cublas-cu12", "12.6.4.1")
    wheel(others, "torch", "2.13.0+cu126", "nvidia-cublas-cu12==12.6.4.1")
    wheel(others, "filelock", "9.0")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path / "www"))
    with contextlib.closing(server.socket):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_everything_but_pytorch_and_its_cuda_stays_as_pinned() -> None:
    text = project_for(LOCK, CUDAS[1])
    assert "'filelock==3.0'" in text and "'torch==2.13.0+cu126'" in text
    assert 'torch = { index = "pytorch" }' in text and "https://download.pytorch.org/whl/cu126" in text
    assert not [name for name in ("nvidia", "cuda-toolkit", "triton") if name in text]


def test_every_shipped_lock_can_be_resolved_for_the_other_build() -> None:
    import tomllib

    root = Path(__file__).parents[3]
    locks = [path for path in root.rglob("*.lock") if ".venv" not in path.parts and pins_torch(path)]
    assert len(locks) >= 8
    for path in locks:
        project = tomllib.loads(project_for(path.read_text(), CUDAS[1]))
        wanted = project["project"]["dependencies"]
        assert "torch==2.13.0+cu126" in wanted, path
        assert not [row for row in wanted if row.startswith(("nvidia-", "cuda-", "triton"))], path


def test_an_old_driver_gets_an_environment_for_its_cuda_and_a_new_one_the_lock_itself(
    toy, smi: Path, indices: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (toy.root / "benchmarks/toy/requirements.lock").write_text(LOCK)
    environment = Environment(name="toy", lock="benchmarks/toy/requirements.lock", python=None)
    runtime = VenvRuntime(toy.project, toy.home)
    answers(smi, "580.65.06, 9.0\n")
    with_new = runtime.environment_digest(environment)
    assert "cuda" not in runtime.describe(environment)
    cuda.find_gpus.cache_clear()
    answers(smi, "550.54.15, 9.0\n")
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"{indices}/pypi")
    monkeypatch.setenv(cuda.INDEX_VARIABLE, f"{indices}/whl")
    assert runtime.environment_digest(environment) != with_new
    runtime.prepare(environment, print)
    assert runtime.describe(environment)["cuda"] == "12.6"
    listed = subprocess.run(
        [uv.find_uv_bin(), "pip", "list", "--python", runtime.python(environment), "--format", "freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split() == ["filelock==3.0", "nvidia-cublas-cu12==12.6.4.1", "torch==2.13.0+cu126"]
    (kept,) = (toy.home / "locks").glob("*-cu126.lock")
    assert kept.read_text().count("--hash=sha256:") == 3


def test_a_driver_too_old_is_refused_before_anything_is_built(toy, smi: Path) -> None:
    (toy.root / "benchmarks/toy/requirements.lock").write_text(LOCK)
    answers(smi, UNKNOWN_FIELD, OLD_TABLE, query_status=2)
    runtime = VenvRuntime(toy.project, toy.home)
    with pytest.raises(EnvironmentFailure, match=r"470\.256\.02"):
        runtime.environment_digest(Environment(name="toy", lock="benchmarks/toy/requirements.lock"))
    (toy.root / "benchmarks/toy/requirements.lock").write_text("numpy==2.0\n")
    runtime.environment_digest(Environment(name="toy", lock="benchmarks/toy/requirements.lock"))


def test_what_is_compiled_for_one_cuda_alone_is_refused_before_anything_is_built(tmp_path: Path, smi: Path) -> None:
    answers(smi, "550.54.15, 9.0\n")
    (tmp_path / "requirements.lock").write_text(LOCK + "vllm==0.32.0 \\\n    --hash=sha256:ffff\n")
    with pytest.raises(EnvironmentFailure, match=r"pins vllm, which is built for CUDA 13\.0 alone.*driver 580"):
        cuda.other_cuda(tmp_path / "requirements.lock")


def test_the_doctor_says_which_build_and_the_fix(toy, smi: Path) -> None:
    answers(smi, "550.54.15, 9.0\n")
    found = VenvRuntime(toy.project, toy.home).checks()[-1]
    assert not found.ok and not found.required and "make setup CUDA=12.6" in found.fix
    assert found.detail == "NVIDIA driver 550.54.15; environments get PyTorch for CUDA 12.6"
    cuda.find_gpus.cache_clear()
    answers(smi, UNKNOWN_FIELD, OLD_TABLE, query_status=2)
    assert "470.256.02" in VenvRuntime(toy.project, toy.home).checks()[-1].detail


def test_a_step_that_would_compute_on_the_cpu_unnoticed_is_refused(toy, smi: Path, tmp_path: Path) -> None:
    answers(smi, "550.54.15, 9.0\n")
    step = Step(name="draw", kind="sample", argv=("{python}", "-c", "0"), resources=Resources(gpus=1))
    places = Places(inputs={}, work=tmp_path / "work", gpus=("0",))
    with pytest.raises(EnvironmentFailure, match="draw: PyTorch is installed here for CUDA 13"):
        VenvRuntime(toy.project, toy.home).run(step, places, print, lambda: False)


# --- images ----------------------------------------------------------------------------------------------------------


def test_an_image_is_built_from_the_resolved_lock_and_has_another_name(
    toy, smi: Path, indices: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (toy.root / "benchmarks/toy/requirements.lock").write_text(LOCK)
    (toy.root / "docker" / "any").mkdir(parents=True)
    (toy.root / "docker/any/Dockerfile").write_text("FROM x\nCOPY benchmarks/${BENCHMARK}/requirements.lock /x\n")
    environment = Environment(name="toy", image="any", lock="benchmarks/toy/requirements.lock", python="3.11")
    environment = dataclasses.replace(environment, build_arguments=(("BENCHMARK", "toy"),))
    answers(smi, "580.65.06, 9.0\n")
    with_new = image_digest(toy.project, environment, None)
    cuda.find_gpus.cache_clear()
    answers(smi, "550.54.15, 9.0\n")
    assert image_digest(toy.project, environment, None) != with_new
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"{indices}/pypi")
    monkeypatch.setenv(cuda.INDEX_VARIABLE, f"{indices}/whl")
    context = tmp_path / "context"
    arguments = fill_context(toy.project, environment, context, toy.home / "locks", tmp_path / "log.txt")
    assert arguments["TORCH_INDEX"] == f"{indices}/whl/cu126" and arguments["CUDA_IMAGE"] == "12.6.3"
    assert "torch==2.13.0+cu126" in (context / "benchmarks/toy/requirements.lock").read_text()


def test_the_dockerfiles_take_the_index_of_the_other_build() -> None:
    root = Path(__file__).parents[3] / "docker"
    for name in ("core", "scorer"):
        assert "ARG TORCH_INDEX" in (root / name / "Dockerfile").read_text()
    assert "nvidia/cuda:${CUDA_IMAGE}-base" in (root / "core" / "Dockerfile").read_text()
    assert f"ARG CUDA_IMAGE={LOCKED.image}\n" in (root / "core" / "Dockerfile").read_text()


def test_the_module_changes_nothing_where_the_lock_is_right(smi: Path, tmp_path: Path) -> None:
    assert sys.executable
    cuda.main([str(tmp_path / "requirements.lock")])

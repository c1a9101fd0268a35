"""Services that a scorer asks, such as a judge: which model is served, and the score's step with a service beside it.

The service runs in the score's step (`harness.scoring.with_service`): it begins when the samples are there, is reached
on this step's own loopback address, and ends with it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalog.benchmarks import Benchmark, ServiceSpec
from harness.contract.errors import MissingAsset, UserError
from harness.planning.hub_cache import commit_of, inputs_by_file
from harness.planning.steps import Environment, Step

RUNNER = "harness.scoring.with_service"
ADDRESS_VARIABLE = "HARNESS_JUDGE_URL"
"""A service that is running already; with it, none is started."""
MODEL_VARIABLE = "HARNESS_JUDGE_MODEL"
"""The model to serve, where the command line names none."""
PROGRAM_VARIABLE = "HARNESS_JUDGE_PROGRAM"
"""The user's own program in place of what the lock of the service installs."""

_HUB_PREFIX = "hf://"
_CONFIGURATIONS = ("config.json", "params.json")
"""One of these is in every folder of a model."""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """The weights that a service serves."""

    name: str
    folder: Path
    revision: str | None = None
    """The commit of a repository of the hub."""


def named_model(given: str | Path | None, variables: Mapping[str, str] = os.environ) -> str | Path | None:
    """The model that the user names: on the command line, or in the environment unless a service is named there."""
    if given is None and not variables.get(ADDRESS_VARIABLE):
        return variables.get(MODEL_VARIABLE) or None
    return given


def served_model(given: str | Path) -> ServedModel:
    """The weights that a user names.

    Raises:
        UserError: it is neither a folder nor the name of a repository.
        MissingAsset: the repository is not in the hub's cache.
    """
    folder = Path(given).expanduser()
    if not str(given).strip() or not folder.is_dir():
        return _of_the_hub(str(given))
    if not any((folder / name).is_file() for name in _CONFIGURATIONS):
        raise UserError(f"--judge {given}: has no {_CONFIGURATIONS[0]}; give the folder of one model's weights.")
    return _from_folder(folder.resolve())


def _of_the_hub(given: str) -> ServedModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, _, revision = given.removeprefix(_HUB_PREFIX).partition("@")
    try:
        if repository.count("/") != 1 or Path(given).exists():
            raise HFValidationError(given)
        folder = snapshot_download(repository, revision=revision or None, local_files_only=True)
    except HFValidationError as error:
        raise UserError(
            f"--judge {given}: is no folder; give the folder of a model's weights, or its name on the hub, OWNER/NAME."
        ) from error
    except LocalEntryNotFoundError as error:
        wanted = f" --revision {revision}" if revision else ""
        raise MissingAsset(
            f"--judge {given}: is neither a folder nor in the cache of the Hugging Face hub (HF_HOME). "
            f"Fetch it:  hf download {repository}{wanted}      or give the folder of its weights."
        ) from error
    return _from_folder(Path(folder))


def _from_folder(folder: Path) -> ServedModel:
    """A model under the name of its folder, or of its repository where the folder is one of the hub's cache."""
    commit = commit_of(folder)
    name = folder.name if commit is None else folder.parents[1].name.rpartition("--")[2]
    return ServedModel(name=name, folder=folder, revision=commit)


def with_model(changes: Mapping[str, Any], service: ServiceSpec, model: ServedModel) -> dict[str, Any]:
    """The scorer's options, with those that tell which model is served where the user has not set them."""
    said = {service.model_option: model.name, service.revision_option: model.revision}
    return {**{name: value for name, value in said.items() if name and value}, **changes}


def with_service(step: Step, benchmark: Benchmark, model: ServedModel, *, program: str | None) -> Step:
    """The step of a score with the service of its benchmark beside it.

    Args:
        step: which asks a service.
        benchmark: it declares one.
        model: what is served.
        program: the user's own, in place of what the service's lock installs.
    """
    service = benchmark.scorer.service
    assert service is not None
    owner = benchmark.scorer.of or benchmark.id
    script = f"{{code}}/benchmarks/{owner}/{service.script}"
    serve = ("{python}", script, "--model", "{in}/model", "--options", "{in}/options.json")
    beside = None if program else service_environment(owner, service)
    resources = step.resources
    return dataclasses.replace(
        step,
        title=f"{step.title}, with {model.name} served beside it",
        environment=dataclasses.replace(step.environment, beside=beside),
        argv=("{python}", "-m", RUNNER, ADDRESS_VARIABLE, *serve, "---", *step.argv),
        inputs={**step.inputs, **inputs_by_file("model", model.folder)},
        identity={**step.identity, **({"service_program": program} if program else {})},
        resources=dataclasses.replace(
            resources,
            gpus=max(resources.gpus, service.gpus),
            memory_gb=resources.memory_gb + service.memory_gb,
            cpus=resources.cpus + service.cpus,
            network=False,
        ),
        has_service=True,
    )


def service_environment(owner: str, service: ServiceSpec) -> Environment:
    """The programs of a service, in an environment of their own; in a container, the scorer's image has them."""
    return Environment(name=f"{owner}-service", lock=service.lock, python=service.python, keyed=True)

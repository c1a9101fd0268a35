"""Our own folder of weights, in the hub's usual form: one safetensors file per part, and `config.json`.

    config.json            architecture, provenance, digests (the fields of `Card`)
    vq.safetensors         the tokenizer; vq_ema: averaged; ar, ema: the same of the AR model; projectors, discriminator
    README.md              the model card

Parts are fetched and read only when they are used: whoever needs the tokenizer fetches only the tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gear.ar.config import ARConfig, TextARConfig, TrunkConfig
from gear.foreign import StateDict, read_state_dict
from gear.tokenizers.base import TokenizerConfig
from gear.weights.layouts import PARTS
from gear.weights.locate import CARD_FILE, WeightsFolder
from harness.contract.digest import is_digest, sha256_file
from harness.contract.errors import UserError
from harness.contract.files import read_json, relative_path_problem, write_json

MODEL_TYPE = "gear"
FORMAT_VERSION = 1
AR_KINDS: dict[str, type[ARConfig] | type[TextARConfig]] = {
    "class-conditional": ARConfig,
    "text-to-image": TextARConfig,
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """`config.json`: plain JSON types only."""

    model_type: str = MODEL_TYPE
    format_version: int = FORMAT_VERSION
    tokenizer: dict[str, Any] | None = None
    """A TokenizerConfig with its family; None without a tokenizer."""
    ar: dict[str, Any] | None = None
    """A key of AR_KINDS under `kind`, and the fields of that configuration; None without an AR model."""
    image_size: int | None = None
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Part -> file, sha256."""
    phase: str | None = None
    steps: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """The settings that the reference calls `args`."""
    run: dict[str, Any] | None = None
    """The whole configuration of `gear train`, if it trained the model."""
    source: dict[str, Any] = field(default_factory=dict)
    """The file this was converted from: name, sha256, layout."""

    @property
    def tokenizer_config(self) -> TokenizerConfig | None:
        return None if self.tokenizer is None else TokenizerConfig.from_dict(self.tokenizer)

    @property
    def ar_config(self) -> TrunkConfig | None:
        if self.ar is None:
            return None
        fields = dict(self.ar)
        return AR_KINDS[fields.pop("kind")](**fields)

    def write(self, folder: Path) -> None:
        write_json(folder / CARD_FILE, asdict(self))

    @staticmethod
    def read(path: Path) -> Card:
        """Raises UserError when the file is another kind of configuration, or of a later version."""
        values = read_json(path)
        if not isinstance(values, dict) or values.get("model_type") != MODEL_TYPE:
            raise UserError(f"{path} is not the model card of a GEAR model; give a folder that `gear convert` wrote.")
        if values.get("format_version") != FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {values.get('format_version')}, but this gear reads {FORMAT_VERSION}; "
                "use the version of gear that wrote it."
            )
        try:
            card = Card(**values)
            _ = card.tokenizer_config, card.ar_config
            for part, entry in card.parts.items():
                if part not in PARTS or not is_digest(entry["sha256"]):
                    raise ValueError(f"the entry of part {part!r}")
                if relative_path_problem(entry["file"]) or not entry["file"].endswith(".safetensors"):
                    raise ValueError(f"{entry['file']!r} is not a safetensors file of this folder")
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError, UserError) as error:
            raise UserError(f"{path} is damaged ({str(error).rstrip('.')}); fetch or convert it again.") from None
        return card


def ar_fields(config: TrunkConfig) -> dict[str, Any]:
    """An AR configuration as `Card.ar` holds it."""
    kind = next(kind for kind, cls in AR_KINDS.items() if isinstance(config, cls))
    return {"kind": kind, **asdict(config)}


class LazyParts(Mapping[str, StateDict]):
    """The parts of a folder or repository, each read when it is first used."""

    def __init__(self, folder: WeightsFolder, card: Card) -> None:
        self.folder, self.card = folder, card
        self._read: dict[str, StateDict] = {}

    def path(self, part: str) -> Path:
        """The file of a part, fetched if necessary."""
        return self.folder.path(self.card.parts[part]["file"])

    def __getitem__(self, part: str) -> StateDict:
        """Raises UserError when the file is not the one that the card describes."""
        if part not in self._read:
            path, expected = self.path(part), self.card.parts[part]["sha256"]
            digest = sha256_file(path)
            if digest != expected:
                raise UserError(
                    f"{path.name} of {self.folder.name} is not the file that {CARD_FILE} describes (sha256 "
                    f"{digest[:12]}, expected {expected[:12]}); fetch or convert it again."
                )
            self._read[part] = read_state_dict(path)
        return self._read[part]

    def __contains__(self, part: object) -> bool:
        return part in self.card.parts

    def __iter__(self) -> Iterator[str]:
        return iter(self.card.parts)

    def __len__(self) -> int:
        return len(self.card.parts)

"""What a model is, found before anything runs: what it draws, and whether its files belong together.

Reading a model's file takes seconds (every byte is compared with its checksum), so what was found is kept under the
digests of the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gear.bench.environment import gear_code_digest
from gear.bench.memory import Needs, bytes_of, needs_of_models
from gear.bench.origins import Origin, pinned, text_encoder
from harness.catalog.benchmarks import Benchmark
from harness.catalog.project import home_dir
from harness.contract.digest import digest_json
from harness.contract.errors import UserError
from harness.contract.fields import build
from harness.contract.files import read_json, write_json
from harness.planning.generators import DrawContext

if TYPE_CHECKING:
    from gear.text import TextConfig


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What an AR model and its tokenizer draw."""

    native_size: int
    """Side of an image in pixels, before it is resized for a benchmark."""
    num_classes: int | None = None
    """Of a class-conditional model; None: it draws prompts."""
    guides: bool = True
    """Whether it has a null condition, which guidance needs."""
    text: Mapping[str, Any] | None = None
    """The `TextConfig` of a text-to-image model."""
    needs: Needs
    """Memory."""

    def refuse(self, model: str, benchmark: Benchmark, *, size_is_meant: bool) -> None:
        """Raise UserError unless it can draw what a benchmark asks for.

        model: its name for the message. size_is_meant: the user has said which size the model draws.
        """
        if (benchmark.condition == "class") != (self.num_classes is not None):
            kind = "draws prompts" if self.num_classes is None else f"draws {self.num_classes:,} classes"
            asked = "class labels" if benchmark.condition == "class" else "prompts"
            raise UserError(
                f"{model} {kind}, but {benchmark.id} asks for {asked}; give another model, or choose a benchmark for "
                "this one: harness ls"
            )
        asked_classes = int(benchmark.requests.get("num_classes", 0))
        if self.num_classes is not None and asked_classes > self.num_classes:
            raise UserError(
                f"{model} draws {self.num_classes:,} classes, but {benchmark.id} asks for {asked_classes:,}; give a "
                "model that was trained on those."
            )
        scale = benchmark.protocol.cfg_scale
        if scale > 1 and not self.guides:
            raise UserError(
                f"{model} has no null class, so it cannot be guided, but {benchmark.id} asks for guidance {scale:g}; "
                "add --protocol cfg_scale=1."
            )
        self._refuse_size(model, benchmark, size_is_meant)

    def _refuse_size(self, model: str, benchmark: Benchmark, size_is_meant: bool) -> None:
        """The prompt benchmarks enlarge 256 px twofold, as published; any other change of size must be meant."""
        wanted = benchmark.protocol.image_size
        if self.num_classes is not None and self.native_size < wanted:
            raise UserError(
                f"{model} draws {self.native_size} px, but {benchmark.id} asks for {wanted} px, and images are not "
                "enlarged; give a model of that size, or score another size with "
                f"--protocol image_size={self.native_size}."
            )
        doubled = self.num_classes is None and wanted % self.native_size == 0
        if wanted != self.native_size and not doubled and not size_is_meant:
            raise UserError(
                f"{model} draws {self.native_size} px, which {benchmark.id} would resize to {wanted} px; such numbers "
                "compare only with those that were made likewise. If that is meant, add "
                f"--draw trained-size={self.native_size}."
            )


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What a tokenizer makes of an image."""

    side: int
    """Pixels along one side of a token."""
    bytes: int
    """Of its weights in float32."""


def inspect_pair(
    ckpt: Origin, vq_ckpt: Origin | None, *, ema: bool, trained_size: int | None, context: DrawContext
) -> Drawing | None:
    """What a model draws; None where a file of it is not here yet.

    Raises:
        UserError: a file is no model, there is no tokenizer, or the two do not belong together.
    """
    origins = [ckpt] if vq_ckpt is None else [ckpt, vq_ckpt]
    if any(origin.path is None for origin in origins):
        return None
    what = {"ema": ema, "trained_size": trained_size}

    def find() -> dict[str, Any]:
        return asdict(_inspect_pair(ckpt, vq_ckpt, ema=ema, trained_size=trained_size))

    return build(Drawing, _remembered(origins, what, context, find), "what a model draws")


def inspect_tokenizer(origin: Origin, *, ema: bool, context: DrawContext) -> Tokens | None:
    """What a tokenizer makes of an image; None where the file is not here yet.

    Raises:
        UserError: the file holds no tokenizer.
    """
    if origin.path is None:
        return None

    def find() -> dict[str, Any]:
        from gear.weights import open_model

        with _named(origin):
            model = open_model(str(origin.path))
            model.check_tensors("tokenizer", ema=ema)
            weights = model.weights("tokenizer", ema=ema)
            return asdict(Tokens(side=model.tokenizer_config.downsample, bytes=bytes_of(weights)))

    what = {"ema": ema, "kind": "tokenizer"}
    return build(Tokens, _remembered([origin], what, context, find), "what a tokenizer makes")


def find_text_encoder(drawing: Drawing, given: str | Origin | None) -> Origin | None:
    """The text encoder of a text-to-image model; None where it comes with a package, or the model needs none.

    given: the user's folder or hub id, or a preset's asset, in place of the recorded one.
    Raises:
        UserError: it is not on this machine, or has features of another width.
    """
    from gear.text import TextConfig, weights_source

    if drawing.text is None:
        if given is not None:
            raise UserError("The model draws classes, not prompts; leave out --text-encoder.")
        return None
    config = build(TextConfig, drawing.text, "the model's text encoder")
    if given is None and weights_source(config) is None:
        return None
    origin = _recorded(config) if given is None else text_encoder(given) if isinstance(given, str) else given
    if origin.path is not None:
        _refuse_encoder(origin.said, origin.path, config.feature_dim)
    return origin


def _recorded(config: TextConfig) -> Origin:
    """The encoder that the model was trained with, from the hub's cache or where it then was."""
    from gear.assets import fetch_commands, local_copy
    from gear.text import weights_source

    source = weights_source(config) or ""
    found = local_copy(source)
    if found is None:
        name = source.removeprefix("hf://").rstrip("/")
        get = f"fetch it with: {fetch_commands(source)}, or " if source.startswith("hf://") else ""
        raise UserError(
            f"the model needs its text encoder {name}, which is not on this machine; {get}give its folder: "
            "--text-encoder DIR"
        )
    return Origin(said=pinned(source, found), path=found)


def _refuse_encoder(said: str, folder: Path, width: int) -> None:
    """Refuse a folder without weights, and an encoder that the model was not trained with."""
    card = folder / "config.json"
    if not card.is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{said}: is no folder of a text encoder, with config.json, *.safetensors and its tokenizer's files; give "
            "one with --text-encoder DIR."
        )
    found = read_json(card)
    hidden = found.get("hidden_size") if isinstance(found, dict) else None
    if hidden is not None and hidden != width:
        raise UserError(
            f"{said}: has features of width {hidden}, but the model was trained with width {width}; give the text "
            "encoder that it was trained with: --text-encoder DIR"
        )


def _inspect_pair(ckpt: Origin, vq_ckpt: Origin | None, *, ema: bool, trained_size: int | None) -> Drawing:
    from gear.ar.config import ARConfig, TextARConfig
    from gear.weights import check_own_codes, check_pair, open_model

    with _named(ckpt):
        model = open_model(str(ckpt.path))
        ar = model.ar_config(trained_size)
        model.check_tensors("ar", ema=ema, image_size=trained_size)
    with _named(vq_ckpt or ckpt):
        source = model if vq_ckpt is None else open_model(str(vq_ckpt.path))
        tokenizer = source.tokenizer_config
        source.check_tensors("tokenizer", ema=ema)
    with _named(ckpt), _named(vq_ckpt or ckpt):
        check_pair(tokenizer, ar, trained_with=model.trained_with)
        if vq_ckpt is not None and model.has("tokenizer"):
            check_own_codes(model, source, ema=ema)
    size = ar.grid_side * tokenizer.downsample
    needs = needs_of_models(ar, model.weights("ar", ema=ema), source.weights("tokenizer", ema=ema))
    if isinstance(ar, TextARConfig):
        return Drawing(native_size=size, text=asdict(model.text_settings(ar)[0]), needs=needs)
    assert isinstance(ar, ARConfig)
    return Drawing(native_size=size, num_classes=ar.num_classes, guides=ar.class_dropout_prob > 0, needs=needs)


@contextmanager
def _named(origin: Origin) -> Iterator[None]:
    """Messages name a model as the user did."""
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).replace(str(origin.path), origin.said)) from error


def _remembered(
    origins: Sequence[Origin], what: Mapping[str, Any], context: DrawContext, find: Callable[[], Any]
) -> Any:
    """What `find` finds in these files; kept in the harness's home, where it can be written."""
    digests = [context.digest(_identifying(origin.path)) for origin in origins if origin.path is not None]
    code = gear_code_digest(context.project)
    place = home_dir() / "models" / f"{digest_json([digests, dict(what), code])[:32]}.json"
    if place.is_file():
        return read_json(place)
    found = json.loads(json.dumps(find()))
    with suppress(UserError):  # a home that others have filled may be read-only
        write_json(place, found)
    return found


def _identifying(path: Path) -> Path:
    """The file whose digest says which model this is: the file itself, or the card of a folder."""
    from gear.weights.locate import CARD_FILE, locate

    found = path if path.is_file() else locate(path)
    return found if isinstance(found, Path) else path / CARD_FILE

"""Golden cases of the image tokenizers: model cases per family, the entropy over processes, and checkpoint layouts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gear.foreign import read_weights
from gear.tokenizers import FAMILIES, Code, Tokenizer, TokenizerConfig, build_tokenizer
from gear.tokenizers.checkpoints import tokenizer_keys
from gear.tokenizers.distances import Distances
from gear.tokenizers.entropy import entropy_terms, plain_entropy_terms
from gear.weights.layouts import contents_of
from tests.conformance.case import Result, Unsupported, check, check_equal, load_case
from tests.conformance.process_group import run_in_process_group

AREA = "tokenizers"


def run(path: Path) -> list[Result] | None:
    meta, arrays = load_case(path)
    if "layouts" in meta:
        return layout_results(meta, {name: torch.from_numpy(array) for name, array in arrays.items()})
    tensors = {name: tensor(array) for name, array in arrays.items()}
    if "family" in meta:
        return ModelCase(meta, tensors).results()
    if "world_size" in meta and "cases" in meta:
        return entropy_results(meta, tensors)
    return None


def tensor(array: np.ndarray) -> Tensor:
    """A tensor of a stored array; float16 is only a way of storing and becomes float32."""
    value = torch.from_numpy(np.array(array))
    return value.float() if value.dtype == torch.float16 else value


def golden_config(family: str, values: Mapping[str, Any]) -> TokenizerConfig:
    """Our configuration of a golden case: what the reference asks twice has to agree, and is asked once here."""
    if family not in FAMILIES:
        raise Unsupported(f"the {family} family is not built yet")
    given = dict(values)
    if family == "vq" and "ch_mult" in given:
        given["encoder_ch_mult"] = given["decoder_ch_mult"] = given.pop("ch_mult")
    if family == "lfq":
        bits = given["codebook_size"].bit_length() - 1
        assert given.pop("codebook_embed_dim", bits) == given.pop("z_channels", bits) == bits
    return TokenizerConfig.from_dict({"family": family, **given})


def load_golden_tokenizer(family: str, values: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Tokenizer:
    """A tokenizer with exactly the weights of a case."""
    tokenizer = build_tokenizer(golden_config(family, values))
    tokenizer.load_state_dict(dict(weights), strict=True)
    return tokenizer


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@dataclass
class ModelCase:
    """One tokenizer with stored weights: codes, losses, reconstruction, and the gradients of three scalars."""

    meta: dict[str, Any]
    tensors: dict[str, Tensor]

    def results(self) -> list[Result]:
        weights = under("weights/", self.tensors)
        self.tokenizer = load_golden_tokenizer(self.meta["family"], self.meta["config"], weights)
        self.pixels = self.tensors["input/x"]
        self.found: list[Result] = []
        self._evaluation()
        self._training()
        for block in ("grad_recon", "grad_quant", "grad_soft"):
            self._gradients(block)
        return self.found

    def compare(self, name: str, got: Any) -> None:
        want = self.tensors[name]
        if not want.is_floating_point():
            self.found.append(check_equal(name, got, want))
        else:
            atol = self.meta["tolerance"]["per_tensor"].get(name, {}).get("atol", 0.0)
            self.found.append(check(name, got, want, atol=atol))

    @torch.no_grad()
    def _evaluation(self) -> None:
        tokenizer = self.tokenizer.eval()
        code = tokenizer(self.pixels)
        self.compare("eval/pre_quant", tokenizer.pre_quant(self.pixels))
        self._code("eval", code)
        batch, _, height, width = code.quant.shape
        grid = (batch, height, width)
        vectors = tokenizer.lookup(code.code_ids, grid)
        self.compare("eval/codebook_entry", vectors)
        self.compare("eval/codebook_entry_no_shape", tokenizer.quantize.lookup(code.code_ids))
        self.compare("eval/decode_code", tokenizer.decode(tokenizer.lookup(code.code_ids.view(batch, -1), grid)))
        # The reference returns zeros in evaluation where LFQ has a loss in training; here a loss is absent then.
        for name in under("eval/", self.tensors).keys() & {
            "commit_loss",
            "entropy_total_scaled",
            "sample_entropy",
            "avg_entropy",
        }:
            self.found.append(check(f"eval/{name}", 0.0, self.tensors[f"eval/{name}"], atol=0.0))
        self.found.append(Result("eval/losses", 0.0, 0.0, code.losses.total() == 0.0, "a loss in evaluation mode"))

    @torch.no_grad()
    def _training(self) -> None:
        code = self.tokenizer.train()(self.pixels)
        losses, absent = code.losses, self.meta["absent"]
        slots = {"train/vq_loss": losses.vq, "train/commit_loss": losses.commit, "train/entropy": losses.entropy}
        for name, value in slots.items():
            as_expected = (value is None) == (absent[name] == "none")
            self.found.append(Result(f"{name} present", 0.0, 0.0, as_expected, f"expected {absent[name]}"))
        if losses.vq is not None:
            self.compare("train/vq_loss", losses.vq)
        if losses.commit is not None:
            self.compare("train/commit_loss", losses.commit)
        if losses.entropy is not None:
            self.compare("train/entropy_total_scaled", losses.entropy.total)
            self.compare("train/sample_entropy", losses.entropy.sample)
            self.compare("train/avg_entropy", losses.entropy.average)
        # Stored once, because the mode must not change them.
        self._code("eval", code)

    def _code(self, mode: str, code: Code) -> None:
        self.compare(f"{mode}/quant", code.quant)
        self.compare(f"{mode}/indices", code.code_ids)
        self.compare(f"{mode}/distance", code.code_distances)
        self.compare(f"{mode}/decoded", code.recon)

    def _scalar(self, block: str, code: Code) -> Tensor:
        if block == "grad_recon":
            return (self.tokenizer.decode(code.quant) * self.tensors["input/A"]).mean()
        if block == "grad_quant":
            return torch.as_tensor(code.losses.total())
        posterior = torch.softmax(-code.code_distances / self.meta["tau"], dim=-1)
        return (posterior * self.tensors["input/S"]).sum() / len(posterior)

    def _gradients(self, block: str) -> None:
        self.tokenizer.train().zero_grad(set_to_none=True)
        pre_quant = self.tokenizer.pre_quant(self.pixels)
        pre_quant.retain_grad()
        loss = self._scalar(block, self.tokenizer.quantise(pre_quant))
        loss.backward()
        self.compare(f"{block}/loss", loss)
        self.compare(f"{block}/pre_quant", pre_quant.grad)
        parameters = dict(self.tokenizer.named_parameters())
        without = self.meta["absent"].get(f"{block}/no_grad", [])
        for name in self.meta["grad_parameters"]:
            gradient = parameters[name].grad
            if name in without:
                self.found.append(Result(f"{block}/{name} absent", 0.0, 0.0, gradient is None, "it has a gradient"))
            elif gradient is None:
                self.found.append(Result(f"{block}/{name}", float("inf"), 0.0, False, "it has no gradient"))
            else:
                stored = self.tensors[f"{block}/{name}"]
                self.compare(f"{block}/{name}", gradient[: len(stored)])


def entropy_results(meta: dict[str, Any], tensors: dict[str, Tensor]) -> list[Result]:
    """The entropy terms of a real process group, one process per rank, as stored per rank and family."""
    temperatures = {case: settings["temperature"] for case, settings in meta["cases"].items()}
    shares = [
        {case: (tensors[f"{case}/logits/{rank}"], temperature) for case, temperature in temperatures.items()}
        for rank in range(meta["world_size"])
    ]
    ranks = run_in_process_group(entropy_on_rank, shares)
    found = []
    for case in temperatures:
        for name, want in under(f"{case}/", tensors).items():
            if name.startswith("logits/"):
                continue
            _, quantity, rank = name.split("/")
            scale = float(want.abs().max())
            atol = 1e-4 * scale if quantity == "grad" else 1e-6 * max(1.0, scale)
            for form in ("chunked", "plain"):
                found.append(check(f"{case}/{name} {form}", ranks[int(rank)][case, form][quantity], want, atol=atol))
    return found


def entropy_on_rank(shares: Mapping[str, tuple[Tensor, float]]) -> dict[tuple[str, str], dict[str, Tensor]]:
    """What one process computes of every case in both forms; runs inside a process group."""
    found = {}
    for case, (logits, temperature) in shares.items():
        logits = logits.clone().requires_grad_()
        # Any logits are distances to the unit vectors, with the sign turned.
        units = Distances(queries=logits, codes=torch.eye(logits.shape[1]))
        for form, terms in (
            ("chunked", entropy_terms(units, ratio=1.0, temperature=temperature)),
            ("plain", plain_entropy_terms(logits, ratio=1.0, temperature=temperature)),
        ):
            gradient = torch.autograd.grad(terms.total, logits, retain_graph=True)[0]
            values = {"total": terms.total, "sample_entropy": terms.sample, "avg_entropy": terms.average}
            found[case, form] = {name: value.detach() for name, value in {**values, "grad": gradient}.items()}
    return found


def layout_results(meta: dict[str, Any], tensors: dict[str, Tensor]) -> list[Result]:
    """Write every layout as a checkpoint file, read it, and compare the extracted state dict exactly."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for layout, expected in meta["layouts"].items():
            path = Path(folder) / f"{layout}.pt"
            torch.save(checkpoint_content(expected["top_level"], under(f"{layout}/file|", tensors)), path)
            for loader, result in expected["results"].items():
                name = f"{layout}/{loader}"
                # Where the reference raises or silently finds nothing, the averaged weights are all the file has.
                fails = "problem" in result or "error" in result
                wanted = under(f"{layout}/file|vq_ema|" if fails else f"{name}|", tensors)
                # A lenient load passes over what the table drops.
                wanted, _ = tokenizer_keys(wanted).rename(wanted)
                results += state_dict_results(name, selected(path, **loader_options(loader)), wanted)
    return results


def selected(path: Path, *, ema: bool, lightning_ema: bool) -> Mapping[str, Tensor]:
    """The tokenizer's state dict that a loader with these options takes from a file."""
    found = contents_of(read_weights(path), path)
    averaged = lightning_ema if found.layout == "Lightning" else ema
    order = ("vq_ema", "vq") if averaged else ("vq", "vq_ema")
    return next(found.parts[part] for part in order if part in found.parts)


def checkpoint_content(top_level: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The nested dictionary of a checkpoint file, from tensors named 'key' or 'key|inner key'."""
    content: dict[str, Any] = {}
    for key, kind in top_level.items():
        if kind == "tensor":
            content[key] = tensors[key]
        else:
            content[key] = under(f"{key}|", tensors) if kind == "dict" else kind
    return content


def loader_options(loader: str) -> dict[str, bool]:
    """Our arguments for a loader of the reference, from its name."""
    return {"ema": "use_ema_true" in loader, "lightning_ema": "prefer_magvit2_ema_false" not in loader}


def state_dict_results(name: str, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[Result]:
    missing, extra = wanted.keys() - got.keys(), got.keys() - wanted.keys()
    results = [Result(f"{name} keys", len(missing | extra), 0.0, not missing | extra, f"{missing=} {extra=}")]
    for key in wanted.keys() & got.keys():
        same = got[key].dtype == wanted[key].dtype and torch.equal(got[key], wanted[key])
        results.append(Result(f"{name}|{key}", 0.0 if same else 1.0, 0.0, same, "another value or dtype"))
    return results

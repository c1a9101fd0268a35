"""Golden cases of the tokenizer losses, the reconstruction metrics, and (by delegation) stage-0 training."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from gear.data.loader import Batch
from gear.data.transforms import adm_center_crop, center_crop, short_side_resize, to_array
from gear.losses import LPIPS, LossConfig, LossHead, PatchDiscriminator
from gear.tokenizers import EntropyTerms, QuantizerLosses
from harness.metrics import image
from harness.metrics.frechet import frechet_distance, statistics
from harness.scoring.networks.inception import InceptionV3
from tests.conformance.area_tokenizers import tensor, under
from tests.conformance.case import Result, Unsupported, check, check_equal, first_number, grid_of, leading, load_case
from tests.conformance.hash_weights import hash_weights

AREA = "losses"

Tensors = dict[str, Tensor]


def run(path: Path) -> list[Result] | None:
    meta, arrays = load_case(path)
    checkers: list[tuple[bool, Callable[[dict[str, Any], Tensors], list[Result]]]] = [
        ("variants" in meta, loss_head),
        ("full/input" in arrays, discriminator),
        ("layer0/value" in arrays, lpips),
        ("pool3_features" in arrays, fid_inception),
        ("cases" in meta and any("fid" in case for case in meta["cases"].values()), frechet),
        ("input/feature_matrix" in arrays, recon_metrics),
        ("source_sizes_hw" in meta, preprocessing),
    ]
    if "loss_config" in meta and "batches" in meta:
        return stage0(path)
    tensors = {name: tensor(array) for name, array in arrays.items()}
    for recognised, checker in checkers:
        if recognised:
            return checker(meta, tensors)
    return None


def stage0(path: Path) -> list[Result]:
    if importlib.util.find_spec("tests.conformance.stage0") is None:
        raise Unsupported("tokenizer training steps are not checked yet")
    return importlib.import_module("tests.conformance.stage0").run(path)


class Comparison:
    """Collects comparisons of a case whose tolerances are listed per tensor."""

    def __init__(self, meta: Mapping[str, Any], tensors: Tensors) -> None:
        self.limits = meta["tolerance"].get("per_tensor", meta["tolerance"])
        self.tensors = tensors
        self.results: list[Result] = []

    def __call__(self, name: str, got: Any) -> None:
        want = self.tensors[name]
        got = torch.as_tensor(got).detach()
        if got.ndim and len(got) > len(want):
            got = got[: len(want)]  # only leading rows are stored of large tensors
        if want.is_floating_point():
            self.results.append(check(name, got.reshape(want.shape), want, atol=self.limits[name]["atol"]))
        else:
            self.results.append(check_equal(name, got, want))


def loaded(module: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """`module` with exactly these weights; constants and counters may be missing, nothing may be left over."""
    missing, unexpected = module.load_state_dict(dict(weights), strict=False)
    allowed = ("num_batches_tracked", "scaling_layer.", "fc.")
    assert not unexpected, unexpected
    assert all(any(text in key for text in allowed) for key in missing), missing
    return module


def gradient_of(loss: Tensor, source: Tensor) -> Tensor:
    return torch.autograd.grad(loss, source)[0]


def discriminator(meta: dict[str, Any], tensors: Tensors) -> list[Result]:
    compare = Comparison(meta, tensors)
    for norm in sorted({name.partition("/")[0] for name in tensors} - {"full", "input"}):
        discriminator_blocks(compare, norm, meta["config"])
    weights = hash_weights(meta["hash_weights"])
    full = loaded(PatchDiscriminator(ndf=len(weights["main.0.weight"])), weights)
    with torch.no_grad():
        compare("full/eval_logits", full.eval()(tensors["full/input"]))
        compare("full/train_logits", full.train()(tensors["full/input"]))
    return compare.results


def discriminator_blocks(compare: Comparison, norm: str, config: Mapping[str, Any]) -> None:
    """Evaluation, the generator's pass, the discriminator's pass; each from the stored state."""
    real, fake = compare.tensors["input/real"], compare.tensors["input/fake"].clone().requires_grad_()

    def fresh() -> nn.Module:
        assert config["input_nc"] == 3
        model = PatchDiscriminator(ndf=config["ndf"], n_layers=config["n_layers"], norm=norm)
        return loaded(model, under(f"{norm}/weights/", compare.tensors)).train()

    with torch.no_grad():
        compare(f"{norm}/eval_logits_real", fresh().eval()(real))

    model = fresh()
    logits = model(fake)
    compare(f"{norm}/train_logits_fake", logits)
    compare(f"{norm}/gen_loss_grad_fake", gradient_of(-logits.mean(), fake))
    for name in under(f"{norm}/after_one_train_forward/", compare.tensors):
        compare(f"{norm}/after_one_train_forward/{name}", model.state_dict()[name])

    model = fresh()
    real_logits, fake_logits = model(real), model(fake.detach())
    head = LossHead(LossConfig(perceptual_weight=0), fresh(), None)
    loss, _ = head.discriminator_loss(real, fake, step=0)
    loss.backward()
    compare(f"{norm}/d_logits_real", real_logits)
    compare(f"{norm}/d_logits_fake", fake_logits)
    compare(f"{norm}/hinge_d_loss", loss)
    for name, parameter in head.discriminator.named_parameters():
        compare(f"{norm}/d_grad/{name}", parameter.grad)


def lpips(meta: dict[str, Any], tensors: Tensors) -> list[Result]:
    compare = Comparison(meta, tensors)
    model = loaded(LPIPS(), hash_weights(meta["hash_weights"])).eval()
    assert isinstance(model, LPIPS)
    x, y = tensors["input/x"], tensors["input/y"].clone().requires_grad_()
    compare("scaled_input", leading(model.scaling_layer(x), tensors["scaled_input"]))
    for k, feature in enumerate(model.features(x)):
        compare(f"feature{k}/mean", feature.mean(dim=(1, 2, 3)))
        compare(f"feature{k}/std", feature.std(dim=(1, 2, 3)))
        compare(f"feature{k}/corner", leading(feature, tensors[f"feature{k}/corner"]))
    for k, distance in enumerate(model.layer_distances(x, y)):
        compare(f"layer{k}/value", distance)
    value = model(x, y)
    compare("value", value)
    compare("grad_target", gradient_of(value.mean(), y))
    compare("value_identical_images", model(x, x))
    return compare.results


def loss_head(meta: dict[str, Any], tensors: Tensors) -> list[Result]:
    compare = Comparison(meta, tensors)
    perceptual = loaded(LPIPS(), hash_weights(meta["hash_weights_lpips"]))
    for variant, settings in meta["variants"].items():
        critic = loaded(PatchDiscriminator(ndf=meta["ndf"]), under("discriminator/", tensors))
        head = LossHead(LossConfig(**settings["config_overrides"]), critic, perceptual).train()
        loss_head_variant(compare, variant, head, settings)
    return compare.results


def loss_head_variant(compare: Comparison, variant: str, head: LossHead, settings: Mapping[str, Any]) -> None:
    """One generator pass and two discriminator passes without an update in between."""
    tensors, step = compare.tensors, settings["global_step"]
    pixels, recon = tensors["input/x"], tensors["input/recon"].clone().requires_grad_()
    total, logs = head.generator(pixels, recon, quantizer_losses(tensors, settings), step)
    total.backward()
    compare(f"{variant}/gen/total", total)
    compare(f"{variant}/gen/grad_recon", recon.grad)
    untouched = all(parameter.grad is None for parameter in head.parameters())
    compare.results.append(Result(f"{variant}/gen leaves the head alone", 0.0, 0.0, untouched, "it left gradients"))
    compare_logs(compare, f"{variant}/gen/dict/", logs)

    for index in itertools.takewhile(lambda i: f"{variant}/disc{i}/total" in tensors, itertools.count()):
        head.zero_grad(set_to_none=True)
        loss, logs = head.discriminator_loss(pixels, recon, step)
        loss.backward()
        compare(f"{variant}/disc{index}/total", loss)
        compare_logs(compare, f"{variant}/disc{index}/dict/", logs)
        for name in under(f"{variant}/disc{index}/grad/", tensors):
            gradient = head.discriminator.get_parameter(name).grad
            compare(f"{variant}/disc{index}/grad/{name}", float("nan") if gradient is None else gradient)
        for name in under(f"{variant}/disc{index}/buffer/", tensors):
            compare(f"{variant}/disc{index}/buffer/{name}", head.get_buffer(name))
    for name in under(f"{variant}/after/discriminator/", tensors):
        compare(f"{variant}/after/discriminator/{name}", head.discriminator.get_buffer(name))


def quantizer_losses(tensors: Tensors, settings: Mapping[str, Any]) -> QuantizerLosses:
    """The losses that a variant passes; one is None where the variant says so or the case has no such input.

    With a scalar in the place of the three entropy terms, the reference knows the total only and logs zeros.
    """

    def given(argument: str, name: str) -> Tensor | None:
        described = settings.get(argument, settings.get(f"{argument}_argument", ""))
        absent = described is None or re.fullmatch(r"(the )?(none|null)\b.*", str(described), re.IGNORECASE)
        return None if absent else tensors.get(f"input/{name}")

    entropy, total = None, given("entropy", "entropy_total_scaled")
    if total is not None:
        zero = torch.zeros(())
        scalar = "scalar" in str(settings.get("entropy_argument", ""))
        parts = [zero if scalar else tensors.get(f"input/{name}", zero) for name in ("sample_entropy", "avg_entropy")]
        entropy = EntropyTerms(total=total, sample=parts[0], average=parts[1])
    return QuantizerLosses(vq=given("vq_loss", "vq_loss"), commit=given("commit_loss", "commit_loss"), entropy=entropy)


def compare_logs(compare: Comparison, prefix: str, logs: Mapping[str, Tensor]) -> None:
    stored = under(prefix, compare.tensors)
    compare.results.append(Result(f"{prefix}names", 0.0, 0.0, logs.keys() == stored.keys(), f"{sorted(logs)}"))
    for name in stored.keys() & logs.keys():
        compare(prefix + name, logs[name])


def fid_inception(meta: dict[str, Any], tensors: Tensors) -> list[Result]:
    compare = Comparison(meta, tensors)
    network = InceptionV3()
    recipe = meta["hash_weights"]
    shapes = {key: tuple(network.state_dict()[key].shape) for key in recipe["order"]}
    loaded(network, hash_weights(recipe, shapes))
    images = tensors["input/x01"]
    with torch.no_grad():
        compare("resized_corner", leading(network.preprocess(images), tensors["resized_corner"]))
        for index, block in enumerate(network.blocks(images)):
            if f"block{index}/channel_mean" in tensors:
                compare(f"block{index}/channel_mean", block.mean(dim=(2, 3)))
        compare("pool3_features", network(images))
    return compare.results


def frechet(meta: dict[str, Any], tensors: Tensors) -> list[Result]:
    """Features to statistics to distance; a singular case is judged by the formula that is stable for it."""
    arrays = {name: value.numpy() for name, value in tensors.items()}
    results = []
    for case, values in meta["cases"].items():
        relative = meta["tolerance"][case].startswith("rel ")
        limit = float(meta["tolerance"][case].split()[1])
        tolerance = {"atol": 0.0, "rtol": limit} if relative else {"atol": limit}
        exact, single = (
            [statistics(arrays[f"{case}/features{i}"], mean_dtype=dtype) for i in (1, 2)]
            for dtype in (np.float64, np.float32)
        )
        for i, fitted in enumerate(exact, start=1):
            results.append(check(f"{case}/mu{i}", fitted.mean, arrays[f"{case}/mu{i}"], atol=1e-12))
            results.append(check(f"{case}/sigma{i}", fitted.covariance, arrays[f"{case}/sigma{i}"], atol=1e-12))
        against = re.search(r"against (\w+)", meta["tolerance"][case])
        wanted = values[against[1] if against else "fid"]
        results.append(check(f"{case}/fid", frechet_distance(*exact).value, wanted, **tolerance))
        got, wanted = frechet_distance(*single).value, values["fid_float32_means"]
        results.append(check(f"{case}/fid_float32_means", got, wanted, **tolerance))
    return results


def recon_metrics(meta: dict[str, Any], tensors: Tensors) -> list[Result]:
    """L1, PSNR, SSIM per image and aggregated as the reference does; FID with a stand-in for the network."""
    images_01 = (((tensors["input/images_uint8"].float() / 127.5 - 1) + 1) / 2).clamp(0, 1)
    recon_01 = (tensors["input/reconstructions"].clamp(-1, 1) + 1) / 2
    limit = {name: first_number(meta["tolerance"][name]) for name in ("l1", "psnr", "ssim")}
    # An image that is reproduced almost exactly: its PSNR measures rounding, and is only known to be large.
    exact = re.search(r"image (\d+): only check that it is above ([\d.]+) dB", meta["tolerance"]["psnr"])
    results = []
    for name, function in {"l1": image.l1, "psnr": image.psnr, "ssim": image.ssim}.items():
        values, stored = function(images_01.numpy(), recon_01.numpy()), tensors[f"per_image/{name}"].numpy()
        if name == "psnr" and exact:
            index, least = int(exact[1]), float(exact[2])
            above, value = f"per_image/psnr[{index}] above {least:g} dB", float(values[index])
            results.append(Result(above, 0.0, 0.0, value > least, f"{value}"))
            values[index] = stored[index]
        results.append(check(f"per_image/{name}", values, stored, atol=limit[name]))
        if name == "ssim":
            aggregate = float(np.mean(values))
        else:
            aggregate = image.mean_of_batch_means(values, meta["batch_size"])
        results.append(check(f"vq_val/{name}", aggregate, meta["values"][f"vq_val/{name}"], atol=limit[name]))
        mean = meta["sample_weighted_values"][name]
        results.append(check(f"sample mean of {name}", float(np.mean(values)), mean, atol=limit[name]))

    matrix = tensors["input/feature_matrix"]
    grid = grid_of(meta.get("notes", []), matrix.shape[1] // images_01.shape[1])

    def features(images: Tensor) -> Tensor:
        return F.relu(F.adaptive_avg_pool2d(images, grid).flatten(1) @ matrix.T)

    fitted = [statistics(features(images).numpy(), mean_dtype=np.float32) for images in (images_01, recon_01)]
    wanted = meta["values"]["vq_val/fid"]
    fid_limit = first_number(meta["tolerance"]["fid"]) * max(1.0, wanted)
    results.append(check("vq_val/fid", frechet_distance(*fitted).value, wanted, atol=fid_limit))
    return results


def preprocessing(meta: dict[str, Any], tensors: Tensors) -> list[Result]:
    """PIL resizes and crops of every stored image; exact where Pillow is the version that made the case."""
    size, exact = meta["image_size"], PIL.__version__ == meta["pillow"]
    results = []

    def compare(name: str, got: np.ndarray) -> None:
        want = tensors[name].numpy()
        results.append(check_equal(name, got, want) if exact else check(name, got, want, atol=1.0))

    for i in range(len(meta["source_sizes_hw"])):
        source = Image.fromarray(tensors[f"{i}/source_hwc"].numpy())
        for resample in ("bicubic", "bilinear"):
            cropped = center_crop(short_side_resize(source, size, resample=resample), size)
            compare(f"{i}/{resample}_chw", to_array(cropped))
        compare(f"{i}/adm_center_crop_hwc", to_array(adm_center_crop(source, size)).transpose(1, 2, 0))
        images_u8 = torch.from_numpy(to_array(center_crop(short_side_resize(source, size), size)))[None]
        batch = Batch(images_u8, labels=torch.zeros(1), ids=torch.zeros(1))
        wanted = tensors[f"{i}/codec_input_first_row"]
        atol = 0.0 if exact else 1 / 127.5
        results.append(check(f"{i}/codec_input_first_row", batch.pixels[0, :, 0], wanted, atol=atol))
    return results

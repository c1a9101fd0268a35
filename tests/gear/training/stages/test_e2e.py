"""GEAR's main property: the two losses do not mix. (Numbers against the reference: golden area gear-step.)"""

from __future__ import annotations

import copy

import pytest
import torch

from gear.training.stages.e2e import GearStage, gear_step
from tests.gear import tiny


def grads_after_each_backward(stage: GearStage) -> dict[str, dict[str, set[str]]]:
    """Optimizer name -> module name -> parameters that hold a gradient right after that backward pass."""
    seen: dict[str, dict[str, set[str]]] = {}

    def note(name: str, loss: torch.Tensor) -> None:
        seen[name] = {
            key: {parameter for parameter, p in module.named_parameters() if p.grad is not None}
            for key, module in stage.modules.items()
        }

    for optimization in stage.optimizations.values():
        optimization.after_backward = note
    gear_step(stage, tiny.batch())
    return seen


@pytest.fixture
def stage() -> GearStage:
    built = tiny.stage("e2e")
    assert isinstance(built, GearStage)
    return built


def test_the_alignment_loss_leaves_the_ar_model_without_gradients(stage: GearStage) -> None:
    seen = grads_after_each_backward(stage)["tokenizer"]
    assert seen["ar"] == seen["projectors"] == seen["discriminator"] == set()
    assert seen["vq"] == {name for name, _ in stage.tokenizer.named_parameters()}


def test_ar_loss_leaves_tokenizer_grads_empty(stage: GearStage) -> None:
    seen = grads_after_each_backward(stage)["ar"]
    assert seen["vq"] == seen["discriminator"] == set()
    assert seen["ar"] == {name for name, _ in stage.ar.named_parameters()}


def test_the_critic_updates_only_itself(stage: GearStage) -> None:
    seen = grads_after_each_backward(stage)["discriminator"]
    assert seen["vq"] == seen["ar"] == seen["projectors"] == set()


def test_without_the_alignment_coefficient_the_tokenizer_ignores_the_ar_model() -> None:
    """With lambda_tok = 0 another AR model makes no difference to the tokenizer; otherwise it does."""

    def tokenizer_after(coefficient: float, ar_scale: float) -> dict[str, torch.Tensor]:
        values = copy.deepcopy(tiny.VALUES)
        values["gear"]["tokenizer_align_coeff"] = coefficient
        stage = tiny.stage("e2e", tiny.RunConfig.from_dict(values))
        with torch.no_grad():
            stage.ar.tok_embeddings.weight.mul_(ar_scale)
        for _ in range(2):  # the first update is the no-op of the warm-up
            stage.micro_step(tiny.batch(), last=True, diagnose=False)
        return stage.tokenizer.state_dict()

    weight = "encoder.conv_in.weight"
    assert torch.equal(tokenizer_after(0.0, 1.0)[weight], tokenizer_after(0.0, 3.0)[weight])
    assert not torch.equal(tokenizer_after(0.5, 1.0)[weight], tokenizer_after(0.5, 3.0)[weight])


def test_the_tokenizer_runs_once_per_iteration(stage: GearStage) -> None:
    calls = []
    stage.tokenizer.register_forward_hook(lambda *_: calls.append(1))
    gear_step(stage, tiny.batch())
    assert len(calls) == 1


def test_every_published_figure_is_logged(stage: GearStage) -> None:
    logs = gear_step(stage, tiny.batch())
    published = """ar_total ce_loss proj_loss_ar vq_total proj_loss_vq reconstruction_loss perceptual_loss vq_loss
        commit_loss entropy_loss sample_entropy avg_entropy disc/weighted_gan_loss disc/gan_loss
        disc/discriminator_factor disc/d_loss disc/logits_real disc/logits_fake disc/grad_norm grad_norm_ar
        grad_norm_vq lr/ar lr/vq lr/disc temperature codebook_usage codebook/natural_entropy_nats
        codebook/effective_size codebook/top1_prob soft/entropy_nats soft/effective_size soft/top1000_prob"""
    assert set(published.split()) <= set(logs)


def test_two_micro_batches_of_equal_images_update_like_one() -> None:
    """The same images twice, accumulated, give the mean gradient of one pass: the same AR update, dropout apart."""
    values = copy.deepcopy(tiny.VALUES)
    values["ar"] |= {"token_dropout_p": 0.0, "resid_dropout_p": 0.0, "ffn_dropout_p": 0.0}

    def after(parts: int) -> torch.Tensor:
        changed = copy.deepcopy(values)
        changed["stages"]["e2e"] |= {"accumulation": parts, "batch_size": 4 * parts}
        stage = tiny.stage("e2e", tiny.RunConfig.from_dict(changed))
        stage.ar.label_dropout = 0.0
        for _ in range(2):
            for part in range(parts):
                stage.micro_step(tiny.batch(), last=part == parts - 1, diagnose=False)
        return stage.ar.tok_embeddings.weight.detach()

    torch.testing.assert_close(after(2), after(1), rtol=0.0, atol=2e-5)

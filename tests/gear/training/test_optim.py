from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from gear.config import OptimizerConfig
from gear.training.optim import LossScale, Optimization


def optimization(module: nn.Module, **settings: object) -> Optimization:
    return Optimization(
        "ar", [module], OptimizerConfig(**{"lr": 0.1, "warmup_steps": 0, **settings}), max_grad_norm=1.0, total_steps=10
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_with_a_norm_that_is_not_finite_changes_nothing(value: float) -> None:
    """Neither weights nor moments nor their counters; the next good update is as if the bad one had not happened."""
    layer = nn.Linear(3, 2)
    opt = optimization(layer)
    opt.step(layer(torch.ones(1, 3)).sum())
    before = copy.deepcopy((layer.state_dict(), opt.optimizer.state_dict()["state"]))
    norm = opt.step(layer(torch.ones(1, 3)).sum() * value)
    assert norm is not None
    assert not norm.isfinite()
    torch.testing.assert_close((layer.state_dict(), opt.optimizer.state_dict()["state"]), before, rtol=0, atol=0)
    opt.step(layer(torch.ones(1, 3)).sum())
    assert all(parameter.isfinite().all() for parameter in layer.parameters())
    assert not torch.equal(layer.weight, before[0]["weight"])


def gradient(layer: nn.Linear) -> torch.Tensor:
    assert layer.weight.grad is not None
    return layer.weight.grad


@pytest.mark.parametrize("limit", [0.0, math.inf])
def test_no_limit_leaves_the_gradient_as_it_is(limit: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    opt = Optimization("ar", [layer], OptimizerConfig(warmup_steps=0), max_grad_norm=limit)
    expected = 1e6 * torch.ones(2, 3)
    updated = []
    opt.optimizer.register_step_pre_hook(lambda *_: updated.append(torch.equal(gradient(layer), expected)))
    before = layer.weight.detach().clone()
    opt.step(1e6 * layer(torch.ones(1, 3)).sum())
    assert updated == [True]
    assert not torch.equal(layer.weight, before), "0 does not stop the weights"


def test_warm_up_is_linear_and_the_cosine_ends_at_its_floor() -> None:
    layer = nn.Linear(1, 1)
    opt = optimization(layer, lr=0.5, warmup_steps=2, schedule="cosine", lr_min=0.1)
    rates = []
    for _ in range(11):
        rates.append(opt.lr)
        opt.step(layer(torch.ones(1, 1)).sum())
    halfway = 0.1 + 0.4 * (1 + math.cos(math.pi / 2)) / 2
    assert rates[:3] == [0.0, 0.25, 0.5]
    assert rates[6] == pytest.approx(halfway)
    assert rates[10] == pytest.approx(0.1)


def test_a_run_may_resume_with_another_learning_rate() -> None:
    def after_three(lr: float) -> Optimization:
        torch.manual_seed(0)
        layer = nn.Linear(1, 1)
        opt = optimization(layer, lr=lr, warmup_steps=2, schedule="cosine")
        for _ in range(3):
            opt.step(layer(torch.ones(1, 1)).sum())
        return opt

    lower = optimization(nn.Linear(1, 1), lr=0.05, warmup_steps=2, schedule="cosine")
    lower.load_state_dict(after_three(0.5).state_dict())
    assert lower.lr == lower.optimizer.param_groups[0]["lr"] == after_three(0.05).lr
    lower.step(lower.parameters[0].sum())
    assert 0 < lower.lr < after_three(0.05).lr


def test_gradients_are_clipped_to_the_norm_and_the_norm_is_that_before() -> None:
    layer = nn.Linear(2, 1, bias=False)
    opt = optimization(layer)
    seen = []
    opt.optimizer.register_step_pre_hook(lambda *_: seen.append(layer.weight.grad.clone()))
    norm = opt.step(layer(torch.tensor([[30.0, 40.0]])).sum())
    assert norm == pytest.approx(50.0)
    assert seen[0].norm().item() == pytest.approx(1.0, rel=1e-5)


def scaled(layer: nn.Module, loss_scale: LossScale | None) -> Optimization:
    return Optimization(
        "ar", [layer], OptimizerConfig(lr=0.1, warmup_steps=0), max_grad_norm=1.0, loss_scale=loss_scale
    )


def test_a_loss_scale_does_not_change_an_update_that_fits() -> None:
    def after_three(loss_scale: LossScale | None) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        opt, norm = scaled(layer, loss_scale), None
        for _ in range(3):
            norm = opt.step((layer(torch.arange(3.0)[None]) ** 2).sum())
        return layer.state_dict(), norm

    torch.testing.assert_close(after_three(LossScale("cpu")), after_three(None), rtol=0, atol=0)


def test_an_overflow_halves_the_scale_and_changes_nothing_else() -> None:
    layer = nn.Linear(3, 2)
    scale = LossScale("cpu")
    opt = scaled(layer, scale)
    opt.step(layer(torch.ones(1, 3)).sum())
    before = copy.deepcopy((layer.state_dict(), opt.optimizer.state_dict()["state"]))
    norm = opt.step(layer(torch.ones(1, 3)).sum() * 1e38)  # finite, but not 65,536 times that
    assert norm == 0.0
    assert (scale.scale, scale.good) == (2.0**15, 0)
    torch.testing.assert_close((layer.state_dict(), opt.optimizer.state_dict()["state"]), before, rtol=0, atol=0)


def test_gradients_that_are_not_finite_without_a_scale_are_no_overflow() -> None:
    layer = nn.Linear(3, 2)
    opt = scaled(layer, LossScale("cpu"))
    norms = [opt.step(layer(torch.ones(1, 3)).sum() * math.nan) for _ in range(18)]
    finite = [bool(norm.isfinite()) for norm in norms if norm is not None]
    assert finite == [True] * 16 + [False] * 2, "65,536 halved sixteen times is 1"


def test_the_scale_follows_pytorchs_own_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossScale, "INTERVAL", 3)
    ours = LossScale("cpu")
    theirs = torch.amp.GradScaler("cpu", growth_interval=3)
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for bad in (0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1):
        theirs.scale(weight.sum() * (math.inf if bad else 1.0)).backward()
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        ours.update(torch.tensor(bool(bad)))
        assert ours.scale == theirs.get_scale()
        assert ours.good == theirs.state_dict()["_growth_tracker"]

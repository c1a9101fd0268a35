"""The cross-entropy of the output head in chunks, against the one from whole logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gear import numerics
from gear.ar.config import ARConfig
from gear.ar.cross_entropy import linear_cross_entropy
from gear.ar.model import ClassConditionalAR

ROWS, CODES, WIDTH = 7, 11, 5


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(CODES, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    return hidden, weight, torch.randint(0, CODES, (ROWS,), generator=generator)


@pytest.fixture(params=[1, 25, 1000], ids="{} numbers at a time".format)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Sizes that divide 7 rows of 11 codes into 7, 4 and 1 pieces."""
    monkeypatch.setitem(numerics.CHUNK_ELEMENTS, "cpu", request.param)
    return request.param


def test_value_and_gradients_equal_those_of_whole_logits(chunk: int) -> None:
    hidden, weight, targets = problem()
    ours, plain = linear_cross_entropy(hidden, weight, targets), F.cross_entropy(hidden @ weight.T, targets)
    torch.testing.assert_close(ours, plain)
    got = torch.autograd.grad(3.0 * ours, (hidden, weight))
    torch.testing.assert_close(got, torch.autograd.grad(3.0 * plain, (hidden, weight)))


def test_a_frozen_head_gets_no_gradient_and_its_input_does(chunk: int) -> None:
    hidden, weight, targets = problem()
    linear_cross_entropy(hidden, weight.detach(), targets).backward()
    (wanted,) = torch.autograd.grad(F.cross_entropy(hidden @ weight.T, targets), hidden)
    torch.testing.assert_close(hidden.grad, wanted)
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, weight, targets).requires_grad


def test_very_unlikely_tokens_cost_a_finite_amount() -> None:
    hidden, weight = torch.tensor([[1000.0]]), torch.tensor([[1.0], [-1.0]])
    assert float(linear_cross_entropy(hidden, weight, torch.tensor([1]))) == 2000.0


def test_under_autocast_the_product_is_bfloat16_and_the_softmax_float32() -> None:
    hidden, weight, targets = problem(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, plain = linear_cross_entropy(hidden, weight, targets), F.linear(hidden, weight).float()
    wanted = F.cross_entropy(plain, targets)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, wanted)
    got = torch.autograd.grad(ours, (hidden, weight))
    assert [gradient.dtype for gradient in got] == [torch.float32, torch.float32]
    torch.testing.assert_close(got, torch.autograd.grad(wanted, (hidden, weight)), atol=2e-3, rtol=2e-2)


def test_a_second_backward_pass_is_refused_with_a_message() -> None:
    hidden, weight, targets = problem()
    loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="back-propagated only once"):
        loss.backward()


def test_the_model_s_training_loss_is_the_cross_entropy_of_its_logits(chunk: int) -> None:
    torch.manual_seed(0)
    config = ARConfig(dim=16, n_layer=2, n_head=2, multiple_of=16, vocab_size=CODES, block_size=4, num_classes=3)
    ar = ClassConditionalAR(config).double().eval()
    torch.nn.init.normal_(ar.output.weight)
    code_ids, labels = torch.randint(0, CODES, (2, 4)), torch.tensor([0, 2])

    def gradients(loss: Tensor) -> dict[str, Tensor]:
        ar.zero_grad()
        loss.backward()
        return {name: p.grad for name, p in ar.named_parameters() if p.grad is not None}

    logits, tap = ar(code_ids[:, :-1], labels, tap_layer=1)
    plain = F.cross_entropy(logits.flatten(0, 1), code_ids.flatten())
    loss, our_tap = ar.next_token_loss(code_ids, labels, 1)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(our_tap, tap)
    torch.testing.assert_close(gradients(loss), gradients(plain))

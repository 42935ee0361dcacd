"""Guidance in one batch, features for the semantic consistency loss, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from difficmh.sd21.control import ControlConfig
from difficmh.sd21.denoiser import Conditioning, Denoiser, DenoiserConfig, noise_model
from difficmh.sd21.unet import UNetConfig
from difficmh.training.losses import cosine_distance

UNET = UNetConfig(widths=(32, 64), blocks_per_level=1, head_channels=16, context_width=8)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    model = Denoiser(DenoiserConfig(UNET, ControlConfig(ratio=0.5, head_channels=8)))
    model.initialize_control()
    for conv in (*model.control.enc_out, model.control.mid_out, *model.control.dec_out):
        nn.init.normal_(conv.weight, std=0.1)
    return model.eval().requires_grad_(False)


def some(images: int, seed: int) -> torch.Tensor:
    return torch.randn(images, 4, 8, 4, generator=torch.Generator().manual_seed(seed))


def text(images: int, seed: int) -> torch.Tensor:
    return torch.randn(images, 3, 8, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_one_batch_gives_what_two_calls_give(denoiser: Denoiser) -> None:
    x, guide, context, empty = some(2, 1), some(2, 2), text(2, 3), text(1, 4)
    found = noise_model(denoiser, Conditioning(guide, context, empty, scale=5.0))(x, 321)
    timesteps = torch.full((2,), 321)
    with_text = denoiser(x, timesteps, context, guide)
    without = denoiser(x, timesteps, empty.expand(2, -1, -1), guide)
    torch.testing.assert_close(found, without + 5 * (with_text - without), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(with_text, without, atol=1e-3)


def test_a_scale_of_one_is_one_branch(denoiser: Denoiser) -> None:
    batches = []

    def network(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        batches.append(len(x))
        return x

    for scale in (1.0, 3.0):
        noise_model(network, Conditioning(some(2, 2), text(2, 3), text(1, 4), scale))(some(2, 1), 5)
    assert batches == [2, 4]


def test_guidance_needs_the_empty_text() -> None:
    Conditioning(some(1, 2), text(1, 3))
    with pytest.raises(ValueError, match="empty text"):
        Conditioning(some(1, 2), text(1, 3), scale=5.0)


@torch.inference_mode()
def test_the_guide_steers(denoiser: Denoiser) -> None:
    arguments = some(1, 1), torch.tensor([500]), text(1, 3)
    plain, guided = denoiser(*arguments, None), denoiser(*arguments, some(1, 2))
    assert plain.shape == guided.shape == (1, 4, 8, 4)
    assert not torch.allclose(plain, guided, atol=1e-3)


@torch.inference_mode()
def test_half_precision_weights_give_float32_noise(denoiser: Denoiser) -> None:
    arguments = some(1, 1), torch.tensor([500]), text(1, 3), some(1, 2)
    exact = denoiser(*arguments)
    coarse = Denoiser(denoiser.config).requires_grad_(False)
    coarse.load_state_dict(denoiser.state_dict())
    found = coarse.bfloat16()(*arguments)
    assert found.dtype == torch.float32
    assert float((found - exact).std() / exact.std()) < 0.05


def test_odd_latents_are_refused(denoiser: Denoiser) -> None:
    with pytest.raises(ValueError, match="no multiple of 2"):
        denoiser(torch.zeros(1, 4, 7, 8), torch.tensor([0]), text(1, 3), None)
    with pytest.raises(ValueError, match="no multiple of 2"):
        denoiser.features(torch.zeros(1, 4, 8, 7), torch.tensor([0]), text(1, 3))


def test_the_semantic_loss_reaches_the_guide_only(denoiser: Denoiser) -> None:
    guide, context = some(1, 2).requires_grad_(), text(1, 3)
    with torch.no_grad():
        original = denoiser.semantic_features(some(1, 1), context)
    cosine_distance(denoiser.semantic_features(guide, context), original).backward()  # type: ignore[no-untyped-call]
    assert guide.grad is not None
    assert guide.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in denoiser.parameters())

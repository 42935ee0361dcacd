"""Latent codecs for tests: a tiny one with random weights, and the one of the parity fixtures."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from difficmh.sd21.checkpoint import TABLE_BUFFERS, current_name
from difficmh.sd21.lfgcm import Lfgcm
from difficmh.sd21.lfgcm_config import LfgcmConfig
from tests.difficmh.parity_fixtures import facts, tensors

TINY = LfgcmConfig(analysis_widths=(4, 4, 6, 6), hyper_channels=8, side_channels=4, slices=(2, 2, 4))


def tiny_lfgcm(seed: int = 0) -> Lfgcm:
    """Random weights whose scales and means are not all alike; frozen, in evaluation mode."""
    torch.manual_seed(seed)
    model = Lfgcm(TINY)
    with torch.no_grad():
        for parameters in (*model.entropy_parameters_anchor, *model.entropy_parameters_nonanchor):
            last = parameters.fusion[4]
            scales, means = last.bias.chunk(2)
            last.weight.mul_(6)
            scales.uniform_(-0.2, 3)
            means.uniform_(-2, 2)
        model.entropy_bottleneck.quantiles.add_(torch.rand(TINY.hyper_channels, 1, 1) - 0.5)
    model.freeze()
    return model.eval().requires_grad_(False)


def random_latents(batch: int = 1, size: tuple[int, int] = (1, 2), seed: int = 0) -> tuple[Tensor, Tensor]:
    """y and z for `tiny_lfgcm`, `size` positions of z."""
    generator = torch.Generator().manual_seed(seed)
    y = 4 * torch.randn(batch, TINY.channels, 4 * size[0], 4 * size[1], generator=generator)
    z = 3 * torch.randn(batch, TINY.hyper_channels, *size, generator=generator)
    return y, z


def fixture_config() -> LfgcmConfig:
    """Sizes of the parity fixtures' codec."""
    official = facts("lfgcm_small")["constructor"]
    return LfgcmConfig(
        image_channels=official["in_nc"],
        latent_channels=official["out_nc"],
        analysis_widths=tuple(official["enc_mid"]),
        hyper_channels=official["N"],
        side_channels=official["prior_nc"],
        side_kernel=official["sft_ks"],
        slices=tuple(official["slice_ch"]),
    )


def load_official(model: Lfgcm, state: Mapping[str, Tensor]) -> None:
    """Loads an official state dict, keys as below `preprocess_model.`, of either naming, strictly but for tables.

    Raises RuntimeError, torch's own, that names what is missing, unexpected or of another shape.
    """
    tables = tuple(f".{name}" for name in TABLE_BUFFERS)
    model.load_state_dict({current_name(name): each for name, each in state.items() if not name.endswith(tables)})


def fixture_lfgcm() -> Lfgcm:
    """The parity fixtures' codec, frozen, in evaluation mode."""
    model = Lfgcm(fixture_config())
    load_official(model, tensors("lfgcm_small"))
    model.freeze()
    return model.eval()

"""The latent codec around its entropy networks: shapes, gradients, and the names of official checkpoints."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from difficmh.sd21.checkpoint import current_name
from difficmh.sd21.lfgcm import Lfgcm, bits_per_pixel
from difficmh.sd21.lfgcm_config import LfgcmConfig
from tests.difficmh.parity_fixtures import FOLDER
from tests.difficmh.sd21.tiny_lfgcm import TINY, load_official, tiny_lfgcm

KEYS = FOLDER.parent / "spec" / "keys-full.json.gz"
PREFIX = "preprocess_model."
BUFFERS = frozenset(
    [f"entropy_bottleneck.{name}" for name in ("_offset", "_quantized_cdf", "_cdf_length", "target")]
    + [f"gaussian_conditional.{name}" for name in ("_offset", "_quantized_cdf", "_cdf_length", "scale_table")]
    + [f"gaussian_conditional.{name}" for name in ("scale_bound", "lower_bound_scale.bound")]
    + [f"{name}.likelihood_lower_bound.bound" for name in ("entropy_bottleneck", "gaussian_conditional")]
)
"""What a checkpoint holds beside weights: compressai's constants, and integer tables, which training leaves empty."""


def official_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as an official checkpoint has it: old names, and buffers that are no weights."""
    old = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}
    renamed = {}
    for key, value in state.items():
        for new, prefix in old.items():
            key = key.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{prefix}")
        renamed[key] = value
    return renamed | {name: torch.zeros(0) for name in BUFFERS}


def inputs(batch: int = 1, height: int = 64, width: int = 128) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(batch, 3, height, width), torch.randn(batch, 4, height // 8, width // 8)


def test_maps_have_the_sizes_of_the_literature() -> None:
    model = tiny_lfgcm()
    y, z = model.analyze(*inputs(batch=2))
    assert y.shape == (2, TINY.channels, 4, 8)
    assert z.shape == (2, TINY.hyper_channels, 1, 2)
    assert model.guide(y, torch.round(model.centre(z))).shape == (2, 4, 8, 16)


def test_the_guide_is_that_of_training() -> None:
    model = tiny_lfgcm()
    image, reference = inputs()
    output = model(image, reference)
    _, z = model.analyze(image, reference)
    guide = model.guide(output.prediction.y_hat, torch.round(model.centre(z)))
    assert torch.allclose(guide, output.guide, atol=1e-5)


def test_every_weight_but_the_quantiles_learns() -> None:
    model = Lfgcm(TINY)
    output = model(*inputs(), noisy=True)
    assert output.noisy is not None
    rate = sum(bits_per_pixel(output.noisy, 64, 128))
    (rate + output.guide.square().mean() + model.entropy_bottleneck.quantile_loss()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_quantile_loss_moves_the_quantiles_alone() -> None:
    model = Lfgcm(TINY)
    model.entropy_bottleneck.quantile_loss().backward()
    learned = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert learned == ["entropy_bottleneck.quantiles"]


@pytest.mark.parametrize(("height", "width"), [(63, 64), (64, 96)])
def test_sizes_that_need_padding_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match="multiples of 64"):
        tiny_lfgcm().analyze(torch.rand(1, 3, height, width), torch.rand(1, 4, height // 8, width // 8))


def test_a_reference_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="reference latents"):
        tiny_lfgcm().analyze(torch.rand(1, 3, 64, 64), torch.rand(1, 4, 8, 16))


@pytest.mark.parametrize(
    "sizes", [{"analysis_widths": (1, 2, 3)}, {"slices": ()}, {"hyper_channels": 6}, {"side_kernel": 2}]
)
def test_impossible_sizes_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"latent codec|channels"):
        LfgcmConfig(**sizes)


def test_official_checkpoints_load() -> None:
    model, other = tiny_lfgcm(1), tiny_lfgcm(2)
    load_official(other, official_names(model.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_new_names_load_too() -> None:
    load_official(tiny_lfgcm(), tiny_lfgcm(1).state_dict())


@pytest.mark.parametrize("change", ["missing", "unexpected", "reshaped"])
def test_checkpoints_that_do_not_fit_are_refused(change: str) -> None:
    state = official_names(tiny_lfgcm().state_dict())
    if change == "missing":
        del state["entropy_bottleneck._matrix0"]
    elif change == "unexpected":
        state["entropy_bottleneck._matrix5"] = torch.zeros(1)
    else:
        state["f_c.0.bias"] = torch.zeros(1)
    with pytest.raises(RuntimeError):
        load_official(tiny_lfgcm(), state)


@pytest.mark.skipif(not KEYS.is_file(), reason=f"no list of official keys in {KEYS.parent}")
def test_released_models_map_one_to_one() -> None:
    entries = json.loads(gzip.decompress(KEYS.read_bytes()))["keys"]
    official = {key.removeprefix(PREFIX): entry for key, entry in entries.items() if key.startswith(PREFIX)}
    assert official.keys() >= BUFFERS
    expected = {current_name(key): tuple(entry["shape"]) for key, entry in official.items() if key not in BUFFERS}
    with torch.device("meta"):
        model = Lfgcm()
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected

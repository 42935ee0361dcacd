"""UNet and control module equal the official ones."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from difficmh.sd21.denoiser import Denoiser
from difficmh.sd21.unet import encode, time_embedding, time_sinusoid
from difficmh.surroundings import in_full_float32
from tests.difficmh.parity_fixtures import needs_parity, tensors
from tests.difficmh.sd21.parity_diffusion import control_facts, denoiser, largest_difference

pytestmark = needs_parity

TOLERANCE = 2e-5
RATIOS = ["r100", "r050", "r020"]


@cache
def model(tag: str) -> Denoiser:
    return denoiser(tag)


@cache
def numbers() -> dict[str, Tensor]:
    return tensors("cddm_small_io")


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    given = numbers()
    return given["x"], given["timesteps"], given["context"]


@torch.inference_mode()
def test_the_unet_alone() -> None:
    assert largest_difference(model("r100")(*inputs(), None), numbers()["base.eps"]) < TOLERANCE


@torch.inference_mode()
def test_features_of_the_unet() -> None:
    features = model("r100").features(*inputs())
    for i, found in enumerate(features.encoder):
        assert largest_difference(found, numbers()[f"base.enc_{i + 1}"]) < TOLERANCE, i
    assert f"base.enc_{len(features.encoder) + 1}" not in numbers()
    assert largest_difference(features.middle, numbers()["base.mid"]) < TOLERANCE


@torch.inference_mode()
def test_features_of_a_clean_latent() -> None:
    guide, context = numbers()["hint"], numbers()["context"]
    middle = model("r100").semantic_features(guide, context)
    assert largest_difference(middle, numbers()["base.hint_t0.mid"]) < TOLERANCE
    ninth = model("r100").semantic_features(guide, context, block=9)
    assert largest_difference(ninth, numbers()["base.hint_t0.enc_9"]) < TOLERANCE


@pytest.mark.parametrize("tag", RATIOS)
@torch.inference_mode()
def test_additions_of_the_control_module(tag: str) -> None:
    x, timesteps, context = inputs()
    sinusoid = time_sinusoid(model(tag).unet, timesteps)
    additions = model(tag).control(x, numbers()["hint"], sinusoid, context)
    for i, found in enumerate(additions.encoder):
        assert largest_difference(found, numbers()[f"{tag}.enc_inject.{i}"]) < TOLERANCE, i
    assert largest_difference(additions.middle, numbers()[f"{tag}.mid_inject"]) < TOLERANCE
    for j, found in enumerate(additions.decoder):
        assert largest_difference(found, numbers()[f"{tag}.dec_inject.{j}"]) < TOLERANCE, j


@pytest.mark.parametrize("tag", RATIOS)
@torch.inference_mode()
def test_the_controlled_noise_estimate(tag: str) -> None:
    check_estimate(tag, torch.device("cpu"))


@pytest.mark.gpu
@torch.inference_mode()
def test_the_controlled_noise_estimate_of_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    with in_full_float32(device):
        check_estimate("r100", device)


def check_estimate(tag: str, device: torch.device) -> None:
    given = [value.to(device) for value in (*inputs(), numbers()["hint"])]
    found = copy.deepcopy(model(tag)).to(device)(*given)
    assert largest_difference(found.cpu(), numbers()[f"{tag}.eps"]) < TOLERANCE


@pytest.mark.parametrize("tag", RATIOS)
def test_groups_and_heads_are_the_official_ones(tag: str) -> None:
    given, control = control_facts(tag), model(tag).control
    assert sum(parameter.numel() for parameter in control.parameters()) == given["n_params"]
    for name, groups in given["groups"].items():
        norm = control.get_submodule(_norm_name(name))
        assert isinstance(norm, nn.GroupNorm)
        assert (norm.num_groups, norm.eps) == (groups, given["group_eps"][name]), name
    for name, heads in given["heads"].items():
        assert control.get_submodule(name).heads == heads, name


def _norm_name(official: str) -> str:
    return official.replace("in_layers.0", "norm1").replace("out_layers.0", "norm2")


@torch.inference_mode()
def test_the_walk_gives_what_diffusers_own_forward_gives() -> None:
    unet = model("r100").unet
    assert largest_difference(unet(*inputs(), return_dict=False)[0], model("r100")(*inputs(), None)) < TOLERANCE


@torch.inference_mode()
def test_additions_of_nothing_change_nothing() -> None:
    x, timesteps, context = inputs()
    quiet = denoiser("r020")
    for conv in (*quiet.control.enc_out, quiet.control.mid_out, *quiet.control.dec_out):
        for parameter in conv.parameters():
            parameter.zero_()
    assert torch.equal(quiet(x, timesteps, context, numbers()["hint"]), quiet(x, timesteps, context, None))
    embedding = time_embedding(quiet.unet, time_sinusoid(quiet.unet, timesteps))
    assert torch.equal(encode(quiet.unet, x, embedding, context).middle, quiet.features(*inputs()).middle)

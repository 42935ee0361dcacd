"""The paper's model as a whole against the official implementation: a picture to its file and back, and the training
objective. The parts have tests of their own, `tests/difficmh/sd21/test_parity_*.py`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from difficmh.sd21 import ldm_keys
from difficmh.sd21.denoiser import Conditioning, noise_model
from difficmh.sd21.lfgcm import Lfgcm
from difficmh.sd21.official_coding import OfficialEntropyTables, OfficialStrings, decode_strings, encode_strings
from difficmh.sd21.official_format import OfficialStream, read_official, write_official
from difficmh.sd21.official_rans import OfficialTables
from difficmh.sd21.reference_sampler import spaced_process
from difficmh.sd21.samplers import draw
from difficmh.sd21.training_losses import LossWeights, SemanticSetting, TrainingBatch, TrainingObjective
from difficmh.surroundings import in_full_float32
from difficmh.symbols import Latents
from tests.difficmh.parity_fixtures import FOLDER, facts, needs_parity, tensors
from tests.difficmh.sd21.parity_diffusion import autoencoder, denoiser
from tests.difficmh.sd21.tiny_lfgcm import fixture_lfgcm

pytestmark = needs_parity

OLD_NAMES = (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor"))


@cache
def end_to_end() -> dict[str, Tensor]:
    return tensors("e2e_small_io")


@cache
def stored_tables() -> OfficialEntropyTables:
    numbers, parts = tensors("lfgcm_small_io"), ("quantized_cdf", "cdf_length", "offset")
    y, z = (
        OfficialTables(*(numbers[f"tables.{name}.{part}"].numpy() for part in parts))
        for name in ("gaussian", "bottleneck")
    )
    return OfficialEntropyTables(z=z, y=y)


@torch.inference_mode()
def test_from_picture_to_official_file() -> None:
    given, told = end_to_end(), facts("e2e_small")
    height, width = told["original_size"]
    padded = torch.zeros(1, 3, *told["padded_size"])
    padded[0, :, :height, :width] = given["image"].permute(2, 0, 1).float() / 255
    lfgcm, latent = fixture_lfgcm(), autoencoder().encode(padded)
    assert_close(latent, given["ref_latent"], atol=2e-5, rtol=2e-6)
    y, z = lfgcm.analyze(padded, latent)
    strings = encode_strings(lfgcm, stored_tables(), y, z)
    stream = OfficialStream(z.shape[2], z.shape[3], strings.y, strings.z[0], tuple(told["tags"]))
    assert write_official(stream) == (FOLDER / "bitstream_tags.bin").read_bytes()


@torch.inference_mode()
@pytest.mark.parametrize("name", ["bitstream_tags", "bitstream_notags", "bitstream_zerotags"])
def test_from_official_file_to_picture(name: str) -> None:
    check_picture(decoded_file(name), torch.device("cpu"))


@pytest.mark.gpu
@torch.inference_mode()
def test_a_gpu_draws_the_official_picture() -> None:
    """From the symbols that a CPU reads of the file: official strings need not decode on another device."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    device = torch.device("cuda")
    with in_full_float32(device):
        check_picture(decoded_file("bitstream_tags"), device)


def decoded_file(name: str) -> Latents:
    stream = read_official((FOLDER / f"{name}.bin").read_bytes())
    strings = OfficialStrings(stream.y_string, (stream.z_string,))
    return decode_strings(fixture_lfgcm(), stored_tables(), strings, (stream.z_height, stream.z_width))


def check_picture(decoded: Latents, device: torch.device) -> None:
    """Guide latent, latent and picture that are drawn of the symbols on a device."""
    given, told = {name: value.to(device) for name, value in end_to_end().items()}, facts("e2e_small")
    guide = fixture_lfgcm().to(device).guide(decoded.y_hat.to(device), decoded.z_symbols.to(device))
    assert_close(guide, given["c_latent"], atol=1e-3, rtol=2e-6)
    conditioning = Conditioning(guide, given["context_cond"], given["context_uncond"], scale=told["cfg_scale"])
    descending = spaced_process(told["steps"]).timesteps[::-1].tolist()
    estimate = noise_model(denoiser(told["control"]).to(device), conditioning)
    latent = draw("ddpm", estimate, given["x_T"], lambda t: given["noises"][descending.index(t)], told["steps"])
    assert_close(latent, given["latent"], atol=5e-3, rtol=0)
    decoded_picture = autoencoder().to(device).decode(latent)[0].clamp(0, 1).mul(255).byte()
    picture = decoded_picture.permute(1, 2, 0).cpu().numpy()
    height, width = told["original_size"]
    off = np.abs(picture[:height, :width].astype(int) - given["recon"].cpu().numpy().astype(int))
    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-3


@cache
def training_batch() -> TrainingBatch:
    given = tensors("train_loss_io")
    return TrainingBatch(
        image=given["image01"].permute(0, 3, 1, 2),
        latent=given["x_start"],
        context=given["context"],
        timesteps=given["t"],
        noise=given["noise"],
    )


@pytest.mark.parametrize("setting", sorted(facts("train_loss")["losses"]) if FOLDER.is_dir() else [])
@torch.no_grad()
def test_training_losses(setting: str) -> None:
    metric, place, kind = setting.split("/")
    semantic = SemanticSetting(
        metric="cosine" if metric == "cos" else "normalized_l2",
        block=None if place == "mid" else int(place.removeprefix("enc_")),
        noisy=kind == "random",
    )
    expected, weights = facts("train_loss")["losses"][setting], facts("train_loss")["weights"]
    losses = TrainingObjective(fixture_lfgcm(), denoiser("r100"), semantic)(training_batch(), noisy_rate=False)
    found = {
        "V/l_simple": losses.diffusion,
        "V/l_bpp": losses.rate,
        "V/l_guide": losses.guide,
        "V/l_semantic": losses.semantic,
        "V/loss": losses.total(
            LossWeights(weights["l_bpp"], weights["l_simple"], weights["l_guide"], weights["l_semantic"])
        ),
    }
    for name, value in found.items():
        assert_close(value.item(), expected[name], rtol=1e-4, atol=0)


def test_gradients_of_the_training_loss() -> None:
    """Of every trained tensor, the norm; the UNet that lends its features is frozen."""
    told = facts("train_loss")
    weights = LossWeights(told["weights"]["l_bpp"])
    lfgcm, model = fixture_lfgcm(), denoiser("r100")
    lfgcm.requires_grad_(True)
    model.control.requires_grad_(True)
    # oneDNN 3's gradient kernels crash on these narrow layers on processors with AVX2.
    with torch.backends.mkldnn.flags(enabled=False):
        TrainingObjective(lfgcm, model)(training_batch(), noisy_rate=False).total(weights).backward()
    norms = told["grad_l2_norms"]
    expected = {name: norm for name, norm in norms.items() if not name.endswith("quantiles")}
    found = official_norms(lfgcm, model.control)
    assert set(expected) <= set(found)
    for name, norm in expected.items():
        assert_close(found[name], norm, rtol=1e-3, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")


def official_norms(lfgcm: Lfgcm, control: Any) -> dict[str, float]:
    """Gradient norms by the official names of the parameters."""
    norms = {}
    for name, parameter in lfgcm.named_parameters():
        for new, old in OLD_NAMES:
            name = re.sub(rf"^entropy_bottleneck\.{re.escape(new)}", f"entropy_bottleneck.{old}", name)
        norms[f"preprocess_model.{name}"] = _norm(parameter)
    ours = {name: _norm(parameter) for name, parameter in control.named_parameters()}
    official = [name for name in tensors("cddm_small_control_r100") if name.startswith(ldm_keys.CONTROL)]
    for name in official:
        own = ldm_keys.control_name(name.removeprefix(ldm_keys.CONTROL))
        if own in ours:
            norms[name] = ours[own]
    return norms


def _norm(parameter: Tensor) -> float:
    return 0.0 if parameter.grad is None else float(parameter.grad.norm())

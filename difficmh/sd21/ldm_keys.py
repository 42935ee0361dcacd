"""Tensors of an official checkpoint, under the names of our modules.

| prefix                    | module            |
|---------------------------|-------------------|
| `model.diffusion_model.`  | `Denoiser.unet`   |
| `control_model.`          | `Denoiser.control`|
| `first_stage_model.`      | `LatentAutoencoder.vae` |
| `cond_stage_model.model.` | `TextConditioner.encoder` |

Every tensor under a prefix has one place in our module and every parameter there gets one tensor; anything else is an
error. UNet, autoencoder and text tower go through diffusers' converters, which leave out silently what they do not
know: so values are counted before and after. All of this works on meta tensors; nothing is copied but the text tower's
projections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from diffusers.loaders import single_file_utils
from torch import Tensor, nn

from difficmh.errors import CapsuleError
from difficmh.sd21.control import ControlModule
from difficmh.sd21.denoiser import Denoiser
from difficmh.sd21.text import TextConditioner
from difficmh.sd21.vae import LatentAutoencoder

converters: Any = single_file_utils  # diffusers' functions are untyped

State = Mapping[str, Tensor]

UNET, CONTROL, VAE, TEXT = "model.diffusion_model.", "control_model.", "first_stage_model.", "cond_stage_model.model."
"""Prefixes of an official checkpoint."""

TEXT_UNUSED = ("text_projection", "logit_scale", "attn_mask")
"""Tensors of the text tower that no embedding depends on."""


def unet_state(checkpoint: State, denoiser: Denoiser) -> dict[str, Tensor]:
    """State of `denoiser.unet` from a checkpoint with official names. Raises CapsuleError where they do not fit."""
    source = _under(checkpoint, UNET)
    state = converters.convert_ldm_unet_checkpoint(source, denoiser.unet.config)
    return _complete(UNET, source, state, denoiser.unet)


def vae_state(checkpoint: State, autoencoder: LatentAutoencoder) -> dict[str, Tensor]:
    """State of `autoencoder.vae`. Raises CapsuleError where names or shapes do not fit."""
    source = _under(checkpoint, VAE)
    return _complete(
        VAE, source, converters.convert_ldm_vae_checkpoint(source, autoencoder.vae.config), autoencoder.vae
    )


def text_state(checkpoint: State, text: TextConditioner) -> dict[str, Tensor]:
    """State of `text.encoder`, without what it does not use. Raises CapsuleError where names or shapes do not fit."""
    source = _under(checkpoint, TEXT)
    last_block = f"{TEXT}transformer.resblocks.{text.config.blocks - 1}."
    used = {
        name: value
        for name, value in source.items()
        if not name.startswith(last_block) and name.removeprefix(TEXT) not in TEXT_UNUSED
    }
    state = converters.convert_open_clip_checkpoint(text.encoder, used, prefix=TEXT)
    if not hasattr(text.encoder, "text_model"):  # transformers 5 dropped this level
        state = {name.removeprefix("text_model."): value for name, value in state.items()}
    return _complete(TEXT, used, state, text.encoder)


def control_state(checkpoint: State, control: ControlModule) -> dict[str, Tensor]:
    """State of the control module. Raises CapsuleError where names or shapes do not fit."""
    source = _under(checkpoint, CONTROL)
    state = {control_name(name.removeprefix(CONTROL)): value for name, value in source.items()}
    return _complete(CONTROL, source, state, control)


CONTROL_NAMES = (
    (r"^control_model\.", ""),
    (r"^time_embed\.0\.", "time_embedding.linear_1."),
    (r"^time_embed\.2\.", "time_embedding.linear_2."),
    (r"\.in_layers\.0\.", ".norm1."),
    (r"\.in_layers\.2\.", ".conv1."),
    (r"\.emb_layers\.1\.", ".time_emb_proj."),
    (r"\.out_layers\.0\.", ".norm2."),
    (r"\.out_layers\.3\.", ".conv2."),
    (r"\.skip_connection\.", ".conv_shortcut."),
    (r"\.0\.op\.", ".0.conv."),
    (r"^enc_zero_convs_out\.(\d+)\.0\.", r"enc_out.\1."),
    (r"^dec_zero_convs_out\.(\d+)\.0\.", r"dec_out.\1."),
    (r"^middle_block_out\.0\.", "mid_out."),
)
"""Official names to ours, as patterns that are applied one after the other."""


def control_name(official: str) -> str:
    """Our name of a tensor of the control module, from its official name without the first `control_model.`."""
    for pattern, replacement in CONTROL_NAMES:
        official = re.sub(pattern, replacement, official)
    return official


def load_strictly(module: nn.Module, state: State) -> None:
    """Puts a state into a module whose weights may still be on the meta device, without copying them.

    The module takes over the state's device and precision. Raises CapsuleError for a missing, unexpected or misshapen
    tensor.
    """
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise CapsuleError(f"weights do not fit the model: {error}") from error


def _under(checkpoint: State, prefix: str) -> dict[str, Tensor]:
    found = {name: value for name, value in checkpoint.items() if name.startswith(prefix)}
    if not found:
        raise CapsuleError(f"the checkpoint has no tensor under {prefix}")
    return found


def _complete(prefix: str, source: State, state: dict[str, Any], module: nn.Module) -> dict[str, Tensor]:
    """`state`, after a check that it is the whole source and the whole module."""
    expected = module.state_dict()
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise CapsuleError(f"{prefix}* lacks {_some(missing)}; it has no place for {_some(unexpected)}")
    wrong = [name for name, value in state.items() if value.shape != expected[name].shape]
    if wrong:
        raise CapsuleError(f"{prefix}* has other shapes for {_some(wrong)}")
    given, kept = (sum(value.numel() for value in values.values()) for values in (source, state))
    if given != kept:
        raise CapsuleError(f"{prefix}* has {given} values, of which the model holds {kept}")
    return state


def _some(names: list[str]) -> str:
    """The first names, for a message."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "nothing"

"""States of our networks under the names of an official checkpoint: the way back from `ldm_keys.py`, for tests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from difficmh.sd21.control import ControlModule
from difficmh.sd21.ldm_keys import CONTROL, TEXT, UNET, VAE
from difficmh.sd21.text import TextConditioner
from difficmh.sd21.unet import input_blocks, middle_block, output_blocks
from difficmh.sd21.vae import LatentAutoencoder

RESNET = (
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("time_emb_proj.", "emb_layers.1."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("conv_shortcut.", "skip_connection."),
)
TIME = (("linear_1.", "0."), ("linear_2.", "2."))
AUTOENCODER = (
    (r"encoder\.down_blocks\.(\d)\.resnets\.", r"encoder.down.\1.block."),
    (r"encoder\.down_blocks\.(\d)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
    (r"mid_block\.attentions\.0\.to_([qkv])\.", r"mid.attn_1.\1."),
    (r"mid_block\.attentions\.0\.to_out\.0\.", "mid.attn_1.proj_out."),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
)
TOWER = (
    (r"^text_model\.", ""),
    (r"embeddings\.token_embedding", "token_embedding"),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"encoder\.layers\.", "transformer.resblocks."),
    (r"layer_norm([12])", r"ln_\1"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
    (r"self_attn\.", "attn."),
    (r"final_layer_norm", "ln_final"),
)


def _rename(name: str, rules: Sequence[tuple[str, str]]) -> str:
    for ours, official in rules:
        name = re.sub(ours, official, name)
    return name


def _blocks(prefix: str, blocks: Sequence[Sequence[nn.Module]]) -> Iterator[tuple[str, Tensor]]:
    for i, block in enumerate(blocks):
        for j, module in enumerate(block):
            for name, tensor in module.state_dict().items():
                if isinstance(module, ResnetBlock2D):
                    name = _rename(name, [(f"^{re.escape(a)}", b) for a, b in RESNET])
                elif i and prefix == "input_blocks" and name.startswith("conv."):
                    name = name.replace("conv.", "op.")
                yield f"{prefix}.{i}.{j}.{name}", tensor


def _middle(block: Sequence[nn.Module]) -> dict[str, Tensor]:
    return {name.replace("middle.0.", "middle_block.", 1): tensor for name, tensor in _blocks("middle", [block])}


def _time(module: nn.Module) -> dict[str, Tensor]:
    return {f"time_embed.{_rename(name, TIME)}": tensor for name, tensor in module.state_dict().items()}


def official_unet(unet: Any) -> dict[str, Tensor]:
    """`model.diffusion_model.*`."""
    state = {**_time(unet.time_embedding), **dict(_blocks("input_blocks", input_blocks(unet)))}
    state |= _middle(middle_block(unet)) | dict(_blocks("output_blocks", output_blocks(unet)))
    for ours, official in (("conv_norm_out", "out.0"), ("conv_out", "out.2")):
        state |= {f"{official}.{name}": t for name, t in unet.get_submodule(ours).state_dict().items()}
    return {f"{UNET}{name}": tensor for name, tensor in state.items()}


def official_control(control: ControlModule) -> dict[str, Tensor]:
    """`control_model.*`."""
    blocks = [list(block.children()) for block in control.input_blocks]
    inner = {**_time(control.time_embedding), **dict(_blocks("input_blocks", blocks))}
    inner |= _middle(list(control.middle_block))
    state = {f"control_model.{name}": tensor for name, tensor in inner.items()}
    state["scale_list"] = control.get_buffer("scale_list")
    for name, tensor in control.state_dict().items():
        if found := re.fullmatch(r"(enc|dec)_out\.(\d+)\.(\w+)", name):
            state[f"{found[1]}_zero_convs_out.{found[2]}.0.{found[3]}"] = tensor
        elif name.startswith("mid_out."):
            state[name.replace("mid_out.", "middle_block_out.0.")] = tensor
    return {f"{CONTROL}{name}": tensor for name, tensor in state.items()}


def official_vae(autoencoder: LatentAutoencoder) -> dict[str, Tensor]:
    """`first_stage_model.*`."""
    last = len(autoencoder.config.widths) - 1
    state = {}
    for name, tensor in autoencoder.vae.state_dict().items():
        official = _rename(name, AUTOENCODER)
        if found := re.match(r"decoder\.up_blocks\.(\d)\.(resnets|upsamplers\.0)\.", official):
            place = "block" if found[2] == "resnets" else "upsample"
            official = f"decoder.up.{last - int(found[1])}.{place}.{official[found.end() :]}"
        wide = ".attn_1." in official and ".norm." not in official and tensor.ndim == 2
        state[f"{VAE}{official}"] = tensor[:, :, None, None] if wide else tensor
    return state


def official_text(text: TextConditioner) -> dict[str, Tensor]:
    """`cond_stage_model.model.*`."""
    state = {_rename(name, TOWER): tensor for name, tensor in text.encoder.state_dict().items()}
    for name in [name for name in state if ".attn.q_proj." in name]:
        start, _, kind = name.rpartition("q_proj.")
        state[f"{start}in_proj_{kind}"] = torch.cat([state.pop(f"{start}{part}_proj.{kind}") for part in "qkv"])
    return {f"{TEXT}{name}": tensor for name, tensor in state.items()}

"""Small files in the layout of the released ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difficmh.sd21.checkpoint import PARTS, SCHEDULE, Shapes, current_name

BOTTLENECK = "preprocess_model.entropy_bottleneck."
OLD_NAMES = tuple(
    f"{BOTTLENECK}_{kind}{i}" for kind, n in (("matrix", 5), ("bias", 5), ("factor", 4)) for i in range(n)
)

WEIGHTS = (
    "control_model.control_model.input_blocks.0.0.weight",
    "control_model.middle_block_out.0.bias",
    *OLD_NAMES,
    f"{BOTTLENECK}quantiles",
    "preprocess_model.g_a3.weight",
    "model.diffusion_model.out.2.weight",
    "first_stage_model.quant_conv.weight",
    "cond_stage_model.model.ln_final.weight",
    "preprocess_tag_model.model.fc.weight",
)
IGNORABLE = (
    "control_model.scale_list",
    f"{BOTTLENECK}target",
    f"{BOTTLENECK}likelihood_lower_bound.bound",
    "preprocess_model.gaussian_conditional.scale_bound",
    "cond_stage_model.model.logit_scale",
    "cond_stage_model.model.transformer.resblocks.23.ln_1.weight",
    "preprocess_tag_model.preprocess_normalize_mean",
    "preprocess_tag_model.model.visual_encoder.layers.0.blocks.1.attn_mask",
    "model_ema.decay",
    "model_ema.num_updates",
)
EMPTY = tuple(
    f"preprocess_model.{coder}.{name}"
    for coder in ("entropy_bottleneck", "gaussian_conditional")
    for name in ("_offset", "_quantized_cdf", "_cdf_length")
)


def state_dict() -> dict[str, Tensor]:
    """Every kind of tensor of the released checkpoint, with values that tell them apart."""
    state = {name: torch.full((2, 3), float(number)) for number, name in enumerate(WEIGHTS, 1)}
    state |= {name: torch.ones(4) for name in (*IGNORABLE, *SCHEDULE)}
    return state | {name: torch.zeros(0, dtype=torch.int32) for name in EMPTY}


def lightning_content(state: dict[str, Tensor] | None = None) -> dict[str, Any]:
    state = state_dict() if state is None else state
    return {
        "epoch": 3,
        "global_step": 1000,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": state,
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "dirpath": "runs"}},
        "optimizer_states": [{"state": {0: {"step": 10, "exp_avg": torch.zeros(7)}}, "param_groups": [{"lr": 1e-4}]}],
        "lr_schedulers": [],
    }


def write_lightning(path: Path, **changes: Any) -> Path:
    """A Lightning checkpoint; `changes` are further or other top-level entries."""
    torch.save(lightning_content() | changes, path)
    return path


def expected(*parts: str) -> dict[str, Shapes]:
    """What the parts, all by default, have to hold."""
    names = [current_name(name) for name in WEIGHTS]
    return {part: {n: (2, 3) for n in names if n.startswith(PARTS[part].prefix)} for part in parts or PARTS}

"""RAM++ at a size for tests, with random weights, and a numpy version of its head written from the formulas."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from difficmh.taggers.ram import RamNetwork, official_name
from difficmh.taggers.ram_head import RamConfig, SwinConfig
from difficmh.taggers.ram_tags import TagList

CONFIG = RamConfig(
    SwinConfig(image_size=64, width=8, depths=(2, 2), heads=(1, 2), window=4),
    tags=5,
    descriptions=3,
    embedding=6,
    width=12,
    layers=2,
    heads=3,
    intermediate=20,
)
TAGS = TagList(("zebra", "Ant", "moth", "bee", "cow"), (0.5, 0.45, 0.65, 1.0, 0.5))

Array = NDArray[np.float64]


def random_network(config: RamConfig = CONFIG, seed: int = 0) -> RamNetwork:
    """Weights large enough that every part changes the result."""
    torch.manual_seed(seed)
    network = RamNetwork(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape) + ("norm" in name.lower() and "weight" in name))
    return network.eval().requires_grad_(False)


def official_state(network: RamNetwork) -> dict[str, Tensor]:
    """As the released file has it: official names, the recomputable buffers stored too."""
    tensors = {**network.state_dict(), **dict(network.named_buffers())}
    return {official_name(name): tensor.clone() for name, tensor in tensors.items()}


def reference_logits(state: Mapping[str, Tensor], features: Array, config: RamConfig) -> Array:
    """`(L, C)` features of one image to `(tags,)` logits, tag by tag and head by head."""
    w = {name: tensor.double().numpy() for name, tensor in state.items()}
    tokens = np.vstack([features.mean(axis=0), features]) @ w["image_proj.weight"].T + w["image_proj.bias"]
    unit = tokens[0] / np.sqrt((tokens[0] ** 2).sum())
    logits = []
    for tag in range(config.tags):
        rows = w["label_embed"][tag * config.descriptions : (tag + 1) * config.descriptions]
        weight = _softmax(np.exp(w["reweight_scale"]) * rows @ unit)
        mixed = sum(weight[k] * rows[k] for k in range(config.descriptions))
        x = np.maximum(w["wordvec_proj.weight"] @ mixed + w["wordvec_proj.bias"], 0)
        for layer in range(config.layers):
            x = _layer(w, f"tagging_head.encoder.layer.{layer}.", x, tokens, config.heads)
        logits.append(float(w["fc.weight"][0] @ x + w["fc.bias"][0]))
    return np.array(logits)


def _layer(w: Mapping[str, Array], name: str, x: Array, tokens: Array, heads: int) -> Array:
    cross = f"{name}crossattention."
    query = _linear(w, f"{cross}self.query", x)
    keys, values = (np.stack([_linear(w, f"{cross}self.{part}", t) for t in tokens]) for part in ("key", "value"))
    size = len(query) // heads
    parts = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        weight = _softmax(keys[:, own] @ query[own] / math.sqrt(size))
        parts.append(weight @ values[:, own])
    x = _norm(w, f"{cross}output.LayerNorm", x + _linear(w, f"{cross}output.dense", np.concatenate(parts)))
    hidden = _linear(w, f"{name}intermediate.dense", x)
    hidden = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in hidden])
    return _norm(w, f"{name}output.LayerNorm", x + _linear(w, f"{name}output.dense", hidden))


def _linear(w: Mapping[str, Array], name: str, x: Array) -> Array:
    return w[f"{name}.weight"] @ x + w[f"{name}.bias"]


def _norm(w: Mapping[str, Array], name: str, x: Array) -> Array:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def reference_pixels(image: NDArray[np.uint8], size: int) -> Array:
    """`(size, size, 3)`: two neighbours a direction, pixel centres at half integers, no antialiasing; normalised."""

    def interpolate(values: Array) -> Array:
        length = len(values)
        out = []
        for i in range(size):
            place = max((i + 0.5) * length / size - 0.5, 0.0)
            low = min(int(place), length - 1)
            high = min(low + 1, length - 1)
            out.append(values[low] + (place - low) * (values[high] - values[low]))
        return np.stack(out)

    values = interpolate(image / 255.0)
    values = interpolate(values.swapaxes(0, 1)).swapaxes(0, 1)
    return (values - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)

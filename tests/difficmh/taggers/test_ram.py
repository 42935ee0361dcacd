import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from difficmh.codec import Tagger
from difficmh.errors import CapsuleError
from difficmh.taggers import ram
from difficmh.taggers.ram import RamNetwork, RamTagger, input_pixels, load_network, official_shapes
from difficmh.taggers.ram_head import RamConfig, RamHead
from difficmh.taggers.ram_tags import TagList
from tests.difficmh.parity_fixtures import FOLDER
from tests.difficmh.taggers.small_ram import (
    CONFIG,
    TAGS,
    official_state,
    random_network,
    reference_logits,
    reference_pixels,
)

KEYS = Path(os.environ.get("DIFFICMH_SPEC") or FOLDER.parent / "spec") / "keys-tagger.json.gz"


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# --- names and sizes of the released weights


@pytest.mark.skipif(not KEYS.is_file(), reason=f"no list of the released tagger's tensors at {KEYS}")
def test_every_released_tensor_has_its_place_at_full_size() -> None:
    released: dict[str, Any] = json.loads(gzip.decompress(KEYS.read_bytes()))["keys"]
    buffers = {name for name in released if name.endswith(ram.RECOMPUTED)}
    assert {name.rpartition(".")[2] for name in buffers} == set(ram.RECOMPUTED)
    weights = {name: tuple(entry["shape"]) for name, entry in released.items() if name not in buffers}
    assert official_shapes(RamConfig()) == weights
    with torch.device("meta"):
        network = RamNetwork(RamConfig())
    ram._compute_buffers(network)
    own = {ram.official_name(name): (list(b.shape), str(b.dtype)) for name, b in network.named_buffers()}
    assert own == {name: (released[name]["shape"], f"torch.{released[name]['dtype']}") for name in buffers}
    assert {ram.own_name(name) for name in released if name in weights} == set(network.state_dict())


def test_names_translate_back_and_forth() -> None:
    name = "visual_encoder.layers.2.downsample.norm.weight"
    assert ram.own_name(name) == "visual_encoder.layers.3.downsample.norm.weight"
    assert ram.official_name(ram.own_name(name)) == name
    assert ram.own_name("visual_encoder.layers.2.blocks.0.norm1.weight") == (
        "visual_encoder.layers.2.blocks.0.norm1.weight"
    )


def test_configuration_survives_json() -> None:
    assert RamConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


# --- numbers


def test_head_follows_the_formulas() -> None:
    network = random_network()
    features = torch.randn(2, 16, CONFIG.visual.features, generator=torch.Generator().manual_seed(1))
    logits = RamHead.forward(network, features)
    expected = [reference_logits(network.state_dict(), image.double().numpy(), CONFIG) for image in features]
    np.testing.assert_allclose(logits, np.stack(expected), rtol=0, atol=2e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("size", [(64, 64), (100, 37), (31, 500), (1, 1), (384, 2)])
def test_pixels_are_stretched_without_antialiasing(size: tuple[int, int]) -> None:
    image = picture(*size)
    found = input_pixels(image, 64)
    assert found.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(found[0].permute(1, 2, 0), reference_pixels(image, 64), atol=2e-4)


def test_384_square_is_what_the_full_size_takes() -> None:
    image = picture(500, 300)
    np.testing.assert_allclose(input_pixels(image, 384)[0].permute(1, 2, 0), reference_pixels(image, 384), atol=2e-4)


def test_visual_encoder_equals_the_one_of_transformers(tmp_path: Path) -> None:
    """Another implementation, which keeps the reduction where the official weights have it."""
    from transformers import SwinConfig as OtherConfig
    from transformers import SwinModel

    network, visual = random_network(), CONFIG.visual
    names = {name.removeprefix("visual_encoder."): t for name, t in official_state(network).items() if "visual" in name}
    published = {new: part for name, tensor in names.items() for new, part in _published_names(name, tensor)}
    save_file(
        {name: part.contiguous() for name, part in published.items()}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    OtherConfig(
        image_size=visual.image_size,
        embed_dim=visual.width,
        depths=list(visual.depths),
        num_heads=list(visual.heads),
        window_size=visual.window,
    ).save_pretrained(tmp_path)
    other = SwinModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    pixels = input_pixels(picture(64, 64), 64)
    with torch.no_grad():
        expected = other(pixels).last_hidden_state
        found = network.visual_encoder.forward_features(pixels).flatten(1, 2)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def _published_names(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Names in the published checkpoints of transformers' Swin, which every version of it reads."""
    if name.endswith(ram.RECOMPUTED):
        return []
    if name.startswith("patch_embed."):
        embeddings = name.replace("patch_embed.proj", "patch_embeddings.projection").replace("patch_embed.norm", "norm")
        return [(f"embeddings.{embeddings}", tensor)]
    if name.startswith("norm."):
        return [(name.replace("norm", "layernorm"), tensor)]
    if ".qkv." in name:
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        return [(f"encoder.{name.replace('attn.qkv', f'attention.self.{part}')}", rows) for part, rows in parts]
    for old, new in (
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("attn.proj", "attention.output.dense"),
        ("attn.relative_position_bias_table", "attention.self.relative_position_bias_table"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ):
        name = name.replace(old, new)
    return [(f"encoder.{name}", tensor)]


# --- loading


def test_released_weights_give_the_same_network() -> None:
    network = random_network()
    loaded = load_network(CONFIG, official_state(network))
    pixels = input_pixels(picture(80, 60), 64)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    torch.testing.assert_close(loaded(pixels), network(pixels))
    without = {name: t for name, t in official_state(network).items() if not name.endswith(ram.RECOMPUTED)}
    torch.testing.assert_close(load_network(CONFIG, without)(pixels), network(pixels))


def test_half_precision_weights_are_taken() -> None:
    state = {name: t.bfloat16() if t.is_floating_point() else t for name, t in official_state(random_network()).items()}
    assert {parameter.dtype for parameter in load_network(CONFIG, state).parameters()} == {torch.float32}


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen", "other windows"])
def test_weights_that_do_not_fit_are_refused(change: str) -> None:
    state = official_state(random_network())
    if change == "missing":
        del state["fc.bias"]
    elif change == "unexpected":
        state["fc2.bias"] = torch.zeros(1)
    elif change == "misshapen":
        state["fc.bias"] = torch.zeros(2)
    else:
        state["visual_encoder.layers.0.blocks.0.attn.relative_position_index"] += 1
    with pytest.raises(CapsuleError, match=r"fc2?\.bias|relative_position_index"):
        load_network(CONFIG, state)


# --- the tagger


def test_tags_are_those_above_their_thresholds() -> None:
    tagger: Tagger = RamTagger(random_network(), TAGS)
    images = [picture(64, 64, 1), picture(90, 33, 2), picture(1, 1, 3)]
    assert isinstance(tagger, RamTagger)
    for image, found in zip(images, tagger(images), strict=True):
        scores = tagger.scores([image])[0]
        given = [n for n in range(5) if float(scores[n]) > float(np.float32(TAGS.thresholds[n]))]
        assert [tag.name for tag in found] == sorted(TAGS.names[n] for n in given)
        assert {tag.name: tag.score for tag in found} == pytest.approx({TAGS.names[n]: float(scores[n]) for n in given})


def test_a_score_equal_to_the_threshold_is_not_enough() -> None:
    tagger = RamTagger(random_network(), TAGS)
    scores = torch.tensor([0.5, 0.45, 0.6500001, 1.0, 0.51])
    assert [tag.name for tag in tagger._choose(scores)] == ["cow", "moth"]


def test_no_images_have_no_tags() -> None:
    assert RamTagger(random_network(), TAGS)([]) == []


def test_a_list_of_another_length_is_refused() -> None:
    with pytest.raises(CapsuleError, match="5 tags came with a list of 1"):
        RamTagger(random_network(), TagList(("a",), (0.5,)))

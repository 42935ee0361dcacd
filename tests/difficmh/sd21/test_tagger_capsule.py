"""The tagger's way from a released file through a capsule to tags."""

from pathlib import Path

import numpy as np
import pytest
import torch

from difficmh.sd21.capsule_writer import CapsuleContents, load_part, write_capsule
from difficmh.sd21.checkpoint import TAGGER_PREFIX, read_parts, read_tagger, with_prefix, without_prefix
from difficmh.taggers.ram import RamTagger, load_network, official_shapes
from difficmh.taggers.ram_head import RamConfig
from difficmh.taggers.ram_tags import TagList
from tests.difficmh.sd21.official_files import state_dict, write_lightning
from tests.difficmh.taggers.small_ram import CONFIG, TAGS, official_state, random_network


@pytest.mark.parametrize("alone", [False, True])
def test_the_tagger_gives_the_same_tags_from_a_capsule(tmp_path: Path, alone: bool) -> None:
    network = random_network()
    released = official_state(network)
    expected = with_prefix(official_shapes(CONFIG), TAGGER_PREFIX)
    if alone:
        torch.save({"model": released}, tmp_path / "ram.pth")
        part = read_tagger(tmp_path / "ram.pth", expected)
    else:
        state = {name: t for name, t in state_dict().items() if not name.startswith("preprocess_tag_model.")}
        state |= {f"{TAGGER_PREFIX}{name}": tensor for name, tensor in released.items()}
        path = write_lightning(tmp_path / "model.ckpt", state_dict=state)
        part = dict(read_parts(path, {"tagger": expected}))["tagger"]
    config = {"tagger": CONFIG.to_dict()}
    capsule = tmp_path / "capsule"
    write_capsule(CapsuleContents("small", config, {"tagger": part}, {}, TAGS.vocabulary(), TAGS), capsule)
    weights = without_prefix(load_part(capsule, "tagger"), TAGGER_PREFIX)
    loaded = RamTagger(load_network(RamConfig.from_dict(config["tagger"]), weights), TagList.load(capsule))
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in loaded.network.state_dict().items())
    image = np.random.default_rng(1).integers(0, 256, (70, 50, 3), np.uint8)
    found, wanted = (tagger([image])[0] for tagger in (loaded, RamTagger(network, TAGS)))
    assert [tag.name for tag in found] == [tag.name for tag in wanted]
    # Not to the last bit: kernels may differ with the alignment of the weights.
    assert [tag.score for tag in found] == pytest.approx([tag.score for tag in wanted], abs=1e-5)

"""The tagger's way from a released file through a capsule to tags."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from difficmh.capsule import BUILT_IN
from difficmh.codec import Codec
from difficmh.errors import CapsuleError
from difficmh.evaluation.graders import Picture
from difficmh.evaluation.statistics import Counts
from difficmh.evaluation.tasks import Tags
from difficmh.sd21.capsule_writer import CapsuleContents, write_capsule
from difficmh.sd21.checkpoint import TAGGER_PREFIX, read_parts, read_tagger, with_prefix, without_prefix
from difficmh.sd21.loading import load_part
from difficmh.taggers.ram import RamTagger, load_network, official_shapes
from difficmh.taggers.ram_head import RamConfig
from difficmh.taggers.ram_tags import TagList
from difficmh.training.data import TrainingSample
from difficmh.training.image_tags import tag_matrix, tag_source
from difficmh.zoo import load_tagger
from tests.difficmh.sd21.official_files import state_dict, write_lightning
from tests.difficmh.taggers.small_ram import CONFIG, TAGS, official_state, random_network
from tests.difficmh.tiny_capsule import photograph


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


@pytest.fixture
def tagger_alone(sd21_capsule: Path, tmp_path: Path) -> Path:
    """The capsule without the networks of its codec."""
    copy = Path(shutil.copytree(sd21_capsule, tmp_path / "copy"))
    for part in ("lfgcm", "unet", "control", "vae", "text"):
        (copy / f"{part}-00001-of-00001.safetensors").unlink()
    return copy


def test_the_tagger_comes_without_the_networks_of_its_codec(tagger_alone: Path, sd21_codec: Codec) -> None:
    image = photograph(70, 50)
    assert load_tagger(tagger_alone)([image]) == sd21_codec.tag([image])
    (tagger_alone / "config.json").write_text('{"format": 1, "family": "sd99"}')
    with pytest.raises(CapsuleError, match="'sd99'"):
        load_tagger(tagger_alone)
    (tagger_alone / "config.json").write_text('{"format": 1, "family": "sd21"}')
    with pytest.raises(CapsuleError, match="describes no codec"):
        load_tagger(tagger_alone)


def test_lite_has_its_own_also_before_there_is_a_codec_to_seal(tmp_path: Path) -> None:
    for name in ("tags.json", "tagger.safetensors"):
        shutil.copy(BUILT_IN / "lite" / name, tmp_path)
    image = photograph(70, 50)
    assert load_tagger(tmp_path)([image]) == load_tagger(BUILT_IN / "lite")([image])


def test_evaluations_take_the_tagger_of_the_capsule(tagger_alone: Path, sd21_codec: Codec) -> None:
    image = photograph(70, 50)
    grader = Tags(str(tagger_alone))
    reference = grader.reference(Picture("any", image))
    assert reference == {tag.name for tag in sd21_codec.tag([image])[0]}
    assert reference
    assert grader.grade(reference, image)["tag_agreement_f1"] == Counts(len(reference), 0, 0)


def test_training_takes_it_with_a_sorted_vocabulary(tagger_alone: Path, sd21_codec: Codec) -> None:
    image = photograph(70, 50)
    source = tag_source(tagger_alone)
    assert list(source.names) == sorted(TAGS.names) != list(TAGS.names)
    (row,) = tag_matrix([TrainingSample("any", image, {})], source, len(source.names))
    found = [source.names[position] for position in row.nonzero().flatten()]
    assert found == [tag.name for tag in sd21_codec.tag([image])[0]]

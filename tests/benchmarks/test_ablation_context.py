"""Training with and without context on tiny networks: what changes, and that the result is a codec."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import difficmh
from benchmarks import ablation_context
from benchmarks.ablation_context import WITH, WITHOUT, ContextFreeStage, EntropyStage
from difficmh.training.export import export
from difficmh.training.run import capsule_state
from difficmh.training.stages import STAGES
from difficmh.training.trainer import averaged_state
from tests.difficmh.tiny_capsule import make_tiny_capsule, photograph


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny capsule, beside it a folder of two pictures."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "pictures").mkdir()
    for number in range(2):
        Image.fromarray(photograph(200, 220, number)).save(folder / "pictures" / f"{number}.png")
    return make_tiny_capsule(folder)


def trained(start: Path, output: Path, *options: str) -> dict[str, Tensor]:
    """Weights after a step or two."""
    place = ["--start", str(start), "--data", str(start.parent / "pictures"), "--output", str(output)]
    how = ["--stage", "rate_distortion", "--minutes", "0.001", "--batch-size", "1"]
    ablation_context.main([*options, *place, *how])
    return averaged_state(output / f"{WITHOUT if options else WITH}.pt")[1]


@pytest.fixture(autouse=True)
def _no_more_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two stages are gone again afterwards."""
    monkeypatch.setitem(STAGES, WITH, EntropyStage)
    monkeypatch.setitem(STAGES, WITHOUT, ContextFreeStage)


def is_context(name: str) -> bool:
    return ".channel." in name or ".local." in name


def test_bits_are_learned_anew_for_the_same_y(start: Path, tmp_path: Path) -> None:
    before = capsule_state(start)[1]
    for options in ((), ("--without-context",)):
        after = trained(start, tmp_path, *options)
        changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
        assert changed == {"h_a", "entropy", "rate"}
        contexts = [bool(weight.any()) for name, weight in after.items() if is_context(name) and ".weight" in name]
        assert len(contexts) == 5, "three slices, the first of which has none before it"
        assert any(contexts) == (not options)
        assert not options or not any(after[name].any() for name in after if is_context(name))


def test_zero_context_makes_a_codec(start: Path, tmp_path: Path) -> None:
    trained(start, tmp_path, "--without-context")
    export(tmp_path / f"{WITHOUT}.pt", "tiny", [start / "tags.json"], tmp_path / "capsule")
    codec = difficmh.load(tmp_path / "capsule")
    (stream,) = codec.compress([photograph(64, 96)], quality=4, tags=[["car"]])
    assert codec.decompress([stream], mode="preview")[0].shape == (3, 64, 96)


@pytest.mark.parametrize("wrong", [["--stage", "one_step", "--start", "lite"], ["--stage", "rate_distortion"]])
def test_it_starts_from_something_and_trains_bits(wrong: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--start is needed, --stage must be rate_distortion"):
        ablation_context.main([*wrong, "--data", "x", "--output", str(tmp_path), "--minutes", "1"])

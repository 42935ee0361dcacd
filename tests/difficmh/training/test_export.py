"""What a capsule is not made of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from difficmh.errors import CapsuleError
from difficmh.training.export import companions, export


@pytest.mark.parametrize(
    ("weights", "value", "words"),
    [
        ("g_s.basis_t.weight", 1e5, r"g_s\.basis_t\.weight are not all finite"),
        ("denoiser.decoder.leave.bias", float("nan"), r"denoiser\.decoder\.leave\.bias are not all finite"),
        ("entropy.h_s.enter.weight", 6e4, "too large for exact sums"),
        ("rate.bottleneck.matrices.0", float("nan"), "are not all finite"),
    ],
)
def test_weights_that_make_no_codec_are_refused_before_anything_is_written(
    tiny_capsule: Path, tmp_path: Path, weights: str, value: float, words: str
) -> None:
    state = torch.load(tiny_capsule.parent / "checkpoint.pt", weights_only=True)
    state["model"][weights].fill_(value)
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(CapsuleError, match=words):
        export(tmp_path / "checkpoint.pt", "mine", [tiny_capsule / "tags.json"], tmp_path / "capsule")
    assert not (tmp_path / "capsule").exists()


def test_an_exported_capsule_can_be_read_by_whom_the_umask_says(tiny_capsule: Path, tmp_path: Path) -> None:
    """Workers may run under another user."""
    mask = os.umask(0o027)
    try:
        export(tiny_capsule.parent / "checkpoint.pt", "mine", [tiny_capsule / "tags.json"], tmp_path / "capsule")
    finally:
        os.umask(mask)
    assert {oct(file.stat().st_mode & 0o777) for file in (tmp_path / "capsule").iterdir()} == {"0o640"}


def test_a_capsule_without_a_name_is_called_as_its_folder(tmp_path: Path) -> None:
    """As everywhere: its card goes with an export of that name."""
    source = tmp_path / "mine"
    source.mkdir()
    (source / "config.json").write_text(json.dumps({"format": 1}))
    (source / "MODEL_CARD.md").touch()
    assert [file.name for file in companions(source, "mine")] == ["MODEL_CARD.md"]
    assert companions(source, "other") == []

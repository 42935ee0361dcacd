"""The model card: what a program fills in, what it leaves alone, and where the stages it lists come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from difficmh.training.card import CARD, filled, training_table, write_card
from difficmh.training.export import companions
from difficmh.training.history import StageRecord, changed_settings, read_history, write_history
from difficmh.training.settings import LossSettings

FIRST = StageRecord("rate_distortion", 2560, 73.04, 6, 192, 3e-4, 5931, "2 threads", {"mse_share": 0.5}, "lite 0123")
SECOND = StageRecord("diffusion", 40, 1.0, 6, 192, 6e-4, 5931, "2 threads", {})


def test_only_what_is_between_markers_changes() -> None:
    text = "before\n<!-- results -->\nold\n\\1 old\n<!-- /results -->\nafter\n"
    assert filled(text, "results", "\nnew \\1\n") == "before\n<!-- results -->\nnew \\1\n<!-- /results -->\nafter\n"
    assert filled(text, "training", "new") == text


def test_a_new_card_has_every_section_and_writing_again_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = {"training": training_table([FIRST, SECOND]), "results": "none"}
    write_card(tmp_path, "mine", sections)
    text = (tmp_path / CARD).read_text()
    assert text.startswith("# `mine`")
    row = (
        "| `rate_distortion` | lite 0123 | 2,560 | 6 of 192 × 192 | 5,931 | 73 | 2 threads | 0.0003 | `mse_share=0.5` |"
    )
    assert text.index(row) < text.index("| `diffusion` | the one before | 40 |")
    write_card(tmp_path, "mine", sections)
    assert (tmp_path / CARD).read_text() == text
    assert capsys.readouterr().err == ""


def test_a_card_without_markers_of_a_section_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The stages of a training would be missing there, and nobody would notice."""
    card = tmp_path / CARD
    card.write_text("# by hand\n<!-- results -->\n<!-- /results -->\n")
    write_card(tmp_path, "mine", {"training": "stages", "results": "none"})
    assert card.read_text() == "# by hand\n<!-- results -->\nnone\n<!-- /results -->\n"
    assert capsys.readouterr().err == f"{card} has no markers of training: it stays as it is there\n"


def test_settings_are_listed_where_they_are_not_the_default() -> None:
    assert changed_settings(LossSettings()) == {}
    assert changed_settings(LossSettings(adversarial=0.0)) == {"adversarial": 0.0}


def test_a_history_comes_back_from_capsule_and_checkpoint(tmp_path: Path) -> None:
    write_history(tmp_path, [FIRST, SECOND])
    weights: dict[str, dict[str, float]] = {"config": {}, "model": {}, "average": {}}
    torch.save({**weights, "history": [FIRST.to_dict()]}, tmp_path / "stage.pt")
    torch.save(weights, tmp_path / "older.pt")
    (found, second), (again,) = read_history(tmp_path), read_history(tmp_path / "stage.pt")
    assert (found, second) == (again, SECOND)
    assert found.minutes == 73.0
    assert read_history(tmp_path / "older.pt") == []


@pytest.mark.parametrize(("name", "card"), [("lite", True), ("mine", False)])
def test_the_card_of_another_codec_does_not_come_along(tmp_path: Path, name: str, card: bool) -> None:
    for file in ("tags.json", "tagger.safetensors", "model.safetensors", "manifest.json", CARD, "LICENSE"):
        (tmp_path / file).touch()
    (tmp_path / "config.json").write_text(json.dumps({"name": "lite"}))
    kept = {"tags.json", "tagger.safetensors", "LICENSE"}
    assert {file.name for file in companions(tmp_path, name)} == (kept | {CARD} if card else kept)

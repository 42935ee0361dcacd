"""Weights of the losses by name."""

from __future__ import annotations

import pytest

from difficmh.training.settings import LossSettings


def test_assignments_change_what_they_name_and_nothing_else() -> None:
    settings = LossSettings().changed(["adversarial=0", "mse_share=0.8"])
    assert (settings.adversarial, settings.mse_share) == (0.0, 0.8)
    assert settings.semantic == LossSettings().semantic


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("adversary=1", "sets none of adversarial, "),
        ("adversarial", "is not NAME=NUMBER"),
        ("adversarial=much", "is not NAME=NUMBER"),
        ("adversarial=-1", "adversarial cannot be -1"),
        ("adversarial=nan", "adversarial cannot be nan"),
        ("tag_dropout=1.5", "tag_dropout cannot be 1.5"),
    ],
)
def test_a_wrong_assignment_says_what_is_wrong(assignment: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LossSettings().changed([assignment])

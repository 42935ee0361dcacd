"""The text tower equals the official one, and so do prompts and tokens as far as they can be checked here.

The tokenizer's vocabulary is not part of the fixtures: tokens are checked with a small vocabulary that maps the pieces
of one prompt to the fixture's ids.
"""

from __future__ import annotations

import torch

from difficmh.sd21.text import BEGIN, END, PADDING
from tests.difficmh.parity_fixtures import facts, needs_parity, tensors
from tests.difficmh.sd21.parity_diffusion import largest_difference, text_conditioner

pytestmark = needs_parity


def fixture_tokens(text: str) -> list[int]:
    """What the official tokenizer made of a prompt, without the padding."""
    row = tensors("text_small_io")["tokens"][facts("text_small")["prompts"].index(text)].tolist()
    found: list[int] = row[: row.index(END) + 1]
    return found


@torch.inference_mode()
def test_embeddings_of_tokens() -> None:
    given = tensors("text_small_io")
    model = text_conditioner(fixture_tokens)
    assert largest_difference(model(given["tokens"].long()), given["penultimate"]) < 1e-5


def test_embeddings_of_prompts() -> None:
    given, prompts = tensors("text_small_io"), facts("text_small")["prompts"]
    model = text_conditioner(fixture_tokens)
    assert model.tokens(prompts).tolist() == given["tokens"].tolist()
    assert largest_difference(model.embed(prompts), given["penultimate"]) < 1e-5


def test_tokens_are_framed_and_padded_as_ours() -> None:
    for row in tensors("text_small_io")["tokens"].tolist():
        end = row.index(END)
        assert row[0] == BEGIN
        assert set(row[end + 1 :]) <= {PADDING}

"""The text tower equals the official one, and the tokens of prompts as far as they can be checked here.

The tokenizer's vocabulary is not part of the fixtures. Prompts of single letters need no merges, so they are tokenized
here; of the others the fixture's tokens are taken.
"""

from __future__ import annotations

from pathlib import Path

import torch

from difficmh.sd21.text import BEGIN, END, PADDING, load_tokenizer
from tests.difficmh.parity_fixtures import facts, needs_parity, tensors
from tests.difficmh.sd21.parity_diffusion import largest_difference, text_conditioner
from tests.difficmh.sd21.tiny_tokenizer import write_tokenizer

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


def test_prompts_of_single_letters_are_tokenized_as_officially(tmp_path: Path) -> None:
    tokenize = load_tokenizer(write_tokenizer(tmp_path))
    simple = [text for text in facts("text_small")["prompts"] if len(text) < 5]
    assert len(simple) == 2
    for text in simple:
        assert tokenize(text) == fixture_tokens(text)


def test_tokens_are_framed_and_padded_as_ours() -> None:
    for row in tensors("text_small_io")["tokens"].tolist():
        end = row.index(END)
        assert row[0] == BEGIN
        assert set(row[end + 1 :]) <= {PADDING}

"""Tokens and cached embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from difficmh.errors import CapsuleError
from difficmh.sd21.text import BEGIN, END, PADDING, TextConditioner, TextConfig, load_tokenizer
from tests.difficmh.sd21.tiny_tokenizer import write_tokenizer

SMALL = TextConfig(width=16, heads=2, blocks=3, positions=8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"), ["i n", "in g</w>"])


@pytest.fixture
def conditioner(files: Path) -> TextConditioner:
    torch.manual_seed(0)
    return TextConditioner(SMALL, load_tokenizer(files, SMALL.positions), cached=2).eval()


def test_tokens_are_clips(files: Path) -> None:
    tokenize = load_tokenizer(files)
    assert tokenize("a, b") == [BEGIN, 320, 267, 321, END]
    assert tokenize("A,  B") == tokenize("a, b")
    assert tokenize("ing") == [BEGIN, 513, END]


def test_tokens_are_padded_with_zero_and_cut(conditioner: TextConditioner) -> None:
    short, long = conditioner.tokens(["a", "a b c d e f g h"]).tolist()
    assert short == [BEGIN, 320, END] + [PADDING] * 5
    assert long == [BEGIN, 320, 321, 322, 323, 324, 325, END]


def test_an_embedding_does_not_depend_on_company(conditioner: TextConditioner) -> None:
    alone = conditioner.embed(["a"])
    assert alone.shape == (1, 8, 16)
    conditioner.forget()
    assert torch.equal(conditioner.embed(["b", "a"])[1:], alone)


def test_embeddings_are_kept_up_to_a_bound(conditioner: TextConditioner, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    tokenize = conditioner.tokenize
    monkeypatch.setattr(conditioner, "tokenize", lambda text: encoded.append(text) or tokenize(text))
    conditioner.embed(["a", "b", "a"])
    assert encoded == ["a", "b"]
    conditioner.embed(["c"])  # pushes out b, the one not used for longest
    conditioner.embed(["a"])
    assert encoded == ["a", "b", "c"]
    conditioner.embed(["b"])
    assert encoded == ["a", "b", "c", "b"]
    conditioner.forget()
    conditioner.embed(["b"])
    assert encoded[-1] == "b"
    assert len(encoded) == 5


def test_the_last_block_of_the_checkpoint_is_left_out(conditioner: TextConditioner) -> None:
    layers = {name.split("layers.")[1].split(".")[0] for name in conditioner.state_dict() if "layers." in name}
    assert layers == {"0", "1"}


def test_a_model_built_without_weights_has_its_positions(files: Path) -> None:
    with torch.device("meta"):
        model = TextConditioner(SMALL, load_tokenizer(files))
    assert all(not buffer.is_meta for buffer in model.buffers())


def test_a_directory_without_a_tokenizer_is_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(CapsuleError, match="no CLIP tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(CapsuleError, match="no CLIP tokenizer"):
        load_tokenizer(tmp_path / "absent")
    write_tokenizer(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(CapsuleError, match="no CLIP tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("no JSON")
    (tmp_path / "merges.txt").write_text("")
    with pytest.raises(CapsuleError, match="no usable CLIP tokenizer"):
        load_tokenizer(tmp_path)
    write_tokenizer(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    vocabulary["<|endoftext|>"] = 600
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(CapsuleError, match="another tokenizer than CLIP's"):
        load_tokenizer(tmp_path)

"""Tags to the text embedding that conditions the denoiser.

Tags become one prompt, "boat, person, river"; the text tower of OpenCLIP ViT-H/14 (transformers' CLIPTextModel) turns
it into 77 vectors, those after the last block but one and the final norm. Stable Diffusion 2.1 was trained that way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from difficmh.errors import CapsuleError

PADDING = 0
"""Token after the end of the text. Most CLIP tokenizers repeat the end token there, which gives another embedding."""

BEGIN, END = 49406, 49407

TOKENIZER_FILES = (("vocab.json", "merges.txt"), ("tokenizer.json",))
"""Sets of files of which one makes a tokenizer."""

CACHED_PROMPTS = 128
"""Embeddings that are kept: 315 kB each at full size."""


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text tower; the defaults are those of OpenCLIP ViT-H/14.

    `blocks` counts those of the checkpoint, of which the last is not used.
    """

    width: int = 1024
    heads: int = 16
    blocks: int = 24
    positions: int = 77
    vocabulary: int = 49408


Tokenize = Callable[[str], list[int]]
"""A prompt to its token ids, begin and end included, at most as many as the text tower has positions."""


def load_tokenizer(directory: Path, positions: int = 77) -> Tokenize:
    """CLIP's tokenizer from the files in a directory (`vocab.json` and `merges.txt`, or `tokenizer.json`).

    Nothing is downloaded. Raises CapsuleError where the directory holds no CLIP tokenizer.
    """
    # transformers makes an empty tokenizer of an empty directory.
    if not any(all((directory / name).is_file() for name in names) for names in TOKENIZER_FILES):
        raise CapsuleError(
            f"{directory} holds no CLIP tokenizer: it needs vocab.json and merges.txt, or tokenizer.json"
        )
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:  # the tokenizers library has no narrower type for a file that it cannot read
        raise CapsuleError(f"{directory} holds no usable CLIP tokenizer: {error}") from error

    def tokenize(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, truncation=True, max_length=positions)["input_ids"]
        return ids

    ends = tokenize("")
    if ends != [BEGIN, END]:
        raise CapsuleError(f"{directory} holds another tokenizer than CLIP's: it makes {ends} of an empty text")
    return tokenize


def build_text_encoder(config: TextConfig) -> Any:
    """transformers' CLIPTextModel of these sizes, with random weights and without the unused last block."""
    encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            num_attention_heads=config.heads,
            num_hidden_layers=config.blocks - 1,
            max_position_embeddings=config.positions,
            vocab_size=config.vocabulary,
            hidden_act="gelu",
        )
    )
    # No weight file holds this buffer: it must be real also where the weights are still to come (meta device).
    embeddings = getattr(encoder, "text_model", encoder).embeddings
    embeddings.register_buffer("position_ids", torch.arange(config.positions, device="cpu")[None], persistent=False)
    return encoder


class TextConditioner(nn.Module):
    """Prompts to embeddings, which are kept for the prompts last used."""

    def __init__(self, config: TextConfig, tokenize: Tokenize, cached: int = CACHED_PROMPTS) -> None:
        super().__init__()
        self.config = config
        self.tokenize = tokenize
        self.encoder = build_text_encoder(config)
        self._cached = cached
        self._cache: OrderedDict[str, Tensor] = OrderedDict()

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings `(B, L, D)` of padded token ids `(B, L)` int64, L the number of positions."""
        # No padding mask: the causal one alone hides what follows, and the padding has embeddings of its own.
        embedding: Tensor = self.encoder(input_ids=tokens).last_hidden_state
        return embedding

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """Token ids `(B, L)` int64 on the CPU; longer prompts are cut and still end in the end token."""
        rows = torch.full((len(prompts), self.config.positions), PADDING, dtype=torch.int64, device="cpu")
        for row, text in zip(rows, prompts, strict=True):
            ids = self.tokenize(text)
            row[: len(ids)] = row.new_tensor(ids)
        return rows

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings `(B, L, D)` of prompts, on the encoder's device.

        Each prompt runs alone, so that its embedding does not depend on the others or on what is in the cache.
        """
        return torch.stack([self._embedding(text) for text in prompts])

    def _embedding(self, text: str) -> Tensor:
        found = self._cache.pop(text, None)
        device = self.encoder.device
        if found is None or found.device != device or found.dtype != self.encoder.dtype:
            found = self(self.tokens([text]).to(device))[0]
        self._cache[text] = found
        if len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        return found

    def forget(self) -> None:
        """Empties the cache; needed after the weights change."""
        self._cache.clear()

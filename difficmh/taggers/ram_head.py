"""The head of RAM++: image tokens and descriptions of each tag to one logit per tag.

    descriptions (T, K, D) ─┐
    first token g ──────────┴─► softmax over K ─► weighted sum ─► query per tag ─┐
    tokens (B, L, D) ───────────────────────────────────────────────────────────┴─► 2 cross-attention layers ─► logit

Attribute names are those of the released weights, so that a state dict fits without translation.
Source: Recognize Anything Plus Model (RAM++) as used by Diff-ICMH's official implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difficmh.config import tuples

LAYER_NORM_EPS = 1e-12


@dataclass(frozen=True)
class SwinConfig:
    """Swin Transformer with patches of 4 x 4 pixels; the defaults are Swin-L at 384 x 384."""

    image_size: int = 384
    width: int = 192
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (6, 12, 24, 48)
    window: int = 12

    @property
    def features(self) -> int:
        """Channels of the last stage: the width doubles from stage to stage."""
        return int(self.width * 2 ** (len(self.depths) - 1))


@dataclass(frozen=True)
class RamConfig:
    """Sizes of RAM++; the defaults are those of the released weights.

    `tags` tags have `descriptions` descriptions each, embedded in `embedding` numbers, which is also the width of an
    image token in the head. `width`, `layers`, `heads` and `intermediate` are those of the cross-attention layers.
    """

    visual: SwinConfig = field(default_factory=SwinConfig)
    tags: int = 4585
    descriptions: int = 51
    embedding: int = 512
    width: int = 768
    layers: int = 2
    heads: int = 4
    intermediate: int = 3072

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RamConfig:
        """Inverse of `to_dict`, also after a trip through JSON. Raises TypeError for unknown fields."""
        return cls(**{**fields, "visual": SwinConfig(**tuples(fields["visual"]))})


class RamHead(nn.Module):
    """Everything of RAM++ after the visual encoder."""

    def __init__(self, config: RamConfig) -> None:
        super().__init__()
        self.config = config
        self.label_embed = nn.Parameter(torch.zeros(config.tags * config.descriptions, config.embedding))
        self.reweight_scale = nn.Parameter(torch.zeros(()))
        self.image_proj = nn.Linear(config.visual.features, config.embedding)
        self.wordvec_proj = nn.Linear(config.embedding, config.width)
        layers = nn.ModuleList(CrossAttentionLayer(config) for _ in range(config.layers))
        self.tagging_head = nn.ModuleDict({"encoder": nn.ModuleDict({"layer": layers})})
        self.layers = (*layers,)
        self.fc = nn.Linear(config.width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """`(B, L, C)` features of the visual encoder, their mean not yet among them, to `(B, tags)` logits."""
        features = torch.cat((features.mean(dim=1, keepdim=True), features), dim=1)
        tokens = self.image_proj(features)
        states = self.queries(tokens[:, 0])
        for layer in self.layers:
            states = layer(states, tokens)
        return self.fc(states).squeeze(-1)

    def queries(self, token: Tensor) -> Tensor:
        """`(B, D)` first tokens to `(B, tags, width)`: each tag's descriptions, weighted by how well they fit."""
        config = self.config
        embeddings = self.label_embed.view(config.tags, config.descriptions, config.embedding)
        fit = self.reweight_scale.exp() * F.normalize(token, dim=-1) @ self.label_embed.T
        weights = fit.view(-1, config.tags, config.descriptions).softmax(dim=-1)
        described = torch.einsum("btk,tkd->btd", weights, embeddings)
        return self.wordvec_proj(described).relu()


class CrossAttentionLayer(nn.Module):
    """A layer of BERT whose self-attention was removed: tags look at the image, never at each other."""

    def __init__(self, config: RamConfig) -> None:
        super().__init__()
        from transformers import BertConfig
        from transformers.models.bert import modeling_bert

        blocks: Any = modeling_bert
        bert = BertConfig(
            hidden_size=config.width,
            num_attention_heads=config.heads,
            intermediate_size=config.intermediate,
            hidden_act="gelu",
            layer_norm_eps=LAYER_NORM_EPS,
            hidden_dropout_prob=0.0,
        )
        attention = CrossAttention(config.width, config.embedding, config.heads)
        self.crossattention = nn.ModuleDict({"self": attention, "output": blocks.BertSelfOutput(bert)})
        self.intermediate = blocks.BertIntermediate(bert)
        self.output = blocks.BertOutput(bert)

    def forward(self, states: Tensor, tokens: Tensor) -> Tensor:
        """`(B, T, width)` tags and `(B, L, D)` image tokens to `(B, T, width)`."""
        attended = self.crossattention["self"](states, tokens)
        states = self.crossattention["output"](attended, states)
        return self.output(self.intermediate(states), states)


class CrossAttention(nn.Module):
    """Multi-head attention whose keys and values have another width than its queries.

    transformers' own cross-attention takes one width for both.
    """

    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)

    def forward(self, states: Tensor, source: Tensor) -> Tensor:
        """`(B, T, width)` and `(B, L, source width)` to `(B, T, width)`, heads side by side."""
        query, key, value = (self._split(part) for part in (self.query(states), self.key(source), self.value(source)))
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

    def _split(self, values: Tensor) -> Tensor:
        """`(B, T, heads * n)` to `(B, heads, T, n)`."""
        return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)

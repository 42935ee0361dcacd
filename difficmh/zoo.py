"""From a capsule on disk to a codec on a device, and to the vocabulary of a stream's model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file as load_tensors

from difficmh.capsule import FORMAT, capsule_fingerprint, capsule_path, read_config
from difficmh.cdf_tables import CdfTables
from difficmh.codec import Codec, CodecParts, Tagger
from difficmh.config import CodecConfig
from difficmh.errors import CapsuleError
from difficmh.model import CodecModel
from difficmh.symbols import EntropyTables
from difficmh.vocabulary import Vocabulary, tag_prior

TRAINING_ONLY = "rate."
"""Prefix of the weights that only training needs: coding reads the integer tables instead."""


def load(name: str | Path, device: str | torch.device = "cpu") -> Codec:
    """The codec of a built-in capsule, such as `"lite"`, or of a capsule directory, on a device.

    Raises CapsuleError where there is no such capsule or its files do not fit each other.
    """
    path = capsule_path(name)
    content = read_config(path)
    if content.get("format") != FORMAT:
        raise CapsuleError(f"{path} has configuration format {content.get('format')}, this version reads {FORMAT}")
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise CapsuleError(f"device {str(device)!r} was asked for, but torch sees no CUDA device here")
    model = load_model(path, CodecConfig.from_dict(content["codec"]))
    model.to(torch.device(device)).to(memory_format=torch.channels_last)
    vocabulary = Vocabulary.load(path / "tags.json")
    parts = CodecParts(
        name=content["name"],
        fingerprint=capsule_fingerprint(path),
        capsule=path,
        model=model,
        tables=load_tables(path),
        prior=tag_prior(vocabulary),
        make_tagger=partial(_load_tagger, path, str(device)),
    )
    return Codec(parts)


def load_model(path: Path, config: CodecConfig) -> CodecModel:
    """The networks with the capsule's weights, in float32, evaluation mode and ready for exact coding."""
    model = CodecModel(config)
    try:
        weights = load_tensors(path / "model.safetensors")
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CapsuleError(f"{path / 'model.safetensors'} does not fit its configuration: {error}") from error
    model.entropy.freeze()
    return model.eval().requires_grad_(False)


def load_tables(path: Path) -> EntropyTables:
    """The integer CDF tables of a capsule."""
    try:
        arrays = load_arrays(path / "tables.safetensors")
        z, y = (CdfTables(*(arrays[f"{name}.{part}"] for part in ("cdfs", "lengths", "offsets"))) for name in "zy")
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CapsuleError(f"{path / 'tables.safetensors'} holds no usable tables: {error}") from error
    return EntropyTables(z=z, y=y)


def _load_tagger(path: Path, device: str) -> Tagger:
    from difficmh.taggers.efficientnet import EfficientNetTagger

    return EfficientNetTagger(path, device)

"""From a capsule on disk to a codec on a device, or to its tagger alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file as load_tensors

from difficmh.capsule import (
    CONFIG,
    FORMAT,
    TABLES,
    VOCABULARY,
    WEIGHTS,
    capsule_fingerprint,
    capsule_path,
    read_config,
    read_name,
    verify_decoding,
)
from difficmh.codec import Codec, Tagger
from difficmh.config import CodecConfig
from difficmh.errors import CapsuleError
from difficmh.lazily import lazily
from difficmh.limits import MOST_STEPS
from difficmh.lite import LiteNetworks
from difficmh.model import CodecModel
from difficmh.networks import Networks
from difficmh.surroundings import while_making_networks
from difficmh.symbols import EntropyTables
from difficmh.vocabulary import Vocabulary, tag_prior


@while_making_networks()
def load(
    name: str | Path, device: str | torch.device = "cpu", *, dtype: str | None = None, compiled: bool = False
) -> Codec:
    """The codec of a built-in or fetched capsule, such as `"lite"`, or of a capsule directory, on a device.

    `dtype` is the precision of the denoiser where its family leaves a choice (`sd21`: float32, bfloat16, float16).
    `compiled` puts the denoiser of `sd21` through torch.compile: minutes for the first picture of each padded size and
    batch size, and faster pictures after; symbols come from networks that are never compiled. Beyond the 8 variants of
    torch's own limit (`torch._dynamo.config.recompile_limit`), further sizes run uncompiled.
    Raises CapsuleError where there is no such capsule, its files are not those it was sealed with or do not fit each
    other, the packages of its family are not installed, or the device is not there; ValueError for what is no device
    or no dtype of the family, and for `lite` compiled.
    """
    path = capsule_path(name)
    place = find_device(device)
    # A wrong weight of the synthesis would give a wrong picture that no checksum of a stream notices.
    verify_decoding(path)
    content = read_config(path)
    networks: Networks
    if _family(path, content) == "lite":
        if compiled:
            raise ValueError("models of the family lite are not compiled: their single step is soon over")
        networks = _load_lite(path, content, place, dtype)
    else:
        networks = _load_sd21(path, content, place, dtype, compiled)
    return Codec(
        name=read_name(path),
        fingerprint=capsule_fingerprint(path),
        capsule=path,
        networks=networks,
        tables=load_tables(path),
        prior=tag_prior(Vocabulary.load(path / VOCABULARY)),
        tagger=lazily(partial(load_tagger, path, place)),  # threads that compress at the same time share one
    )


@while_making_networks()
def load_tagger(path: Path, device: str | torch.device = "cpu") -> Tagger:
    """The tagger of a capsule's directory on a device, without the networks of its codec; of either family.

    A directory without a configuration is one of `lite` in the making. Tags are names of the capsule's `tags.json`.
    Raises CapsuleError as `load`, and where the tagger is missing, altered or does not fit; ValueError for no device.
    """
    place = find_device(device)
    content = read_config(path) if (path / CONFIG).exists() else None
    if content is None or _family(path, content) == "lite":
        from difficmh.taggers.efficientnet import EfficientNetTagger

        return EfficientNetTagger(path, place)
    with _packages_of_sd21(path):
        from difficmh.sd21.loading import load_tagger as load_ram_tagger
        from difficmh.sd21.loading import read_codec
    return load_ram_tagger(path, read_codec(path, content).tagger, place)


def _family(path: Path, content: Mapping[str, Any]) -> str:
    """Of the model that a configuration describes. Raises CapsuleError for what this version does not know."""
    if content.get("format") != FORMAT:
        raise CapsuleError(f"{path} has configuration format {content.get('format')}, this version reads {FORMAT}")
    family = str(content.get("family", "lite"))
    if family not in MOST_STEPS:
        raise CapsuleError(f"{path} holds a model of the family {family!r}, which this version does not know")
    return family


def _load_lite(path: Path, content: Mapping[str, Any], device: torch.device, dtype: str | None) -> LiteNetworks:
    if dtype not in (None, "float32"):
        raise ValueError(f"models of the family lite run in float32, not {dtype}")
    try:
        config = CodecConfig.from_dict(content["codec"])
    except (KeyError, TypeError) as error:
        raise CapsuleError(f"{path / CONFIG} describes no codec of this version: {error!r}") from error
    vocabulary = Vocabulary.load(path / VOCABULARY)
    check_vocabulary(config, vocabulary)
    model = load_model(path, config)
    model.to(device).to(memory_format=torch.channels_last)
    return LiteNetworks(model, vocabulary.names)


def check_vocabulary(config: CodecConfig, vocabulary: Vocabulary) -> None:
    """Raises CapsuleError where networks of `lite` know another number of tags than the vocabulary has."""
    known, there = config.denoiser.vocabulary_size, len(vocabulary.names)
    if known != there:
        raise CapsuleError(f"the denoiser was trained for {known} tags, and the vocabulary has {there}")


def _load_sd21(
    path: Path, content: Mapping[str, Any], device: torch.device, dtype: str | None, compiled: bool
) -> Networks:
    with _packages_of_sd21(path):
        from difficmh.sd21.loading import load_networks, read_codec
    return load_networks(path, read_codec(path, content), device, dtype, compiled=compiled)


@contextmanager
def _packages_of_sd21(path: Path) -> Iterator[None]:
    """Around its import, which takes the packages of an extra. Raises CapsuleError where one is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("difficmh"):
            raise
        raise CapsuleError(
            f"{path} needs the package {error.name}: pip install '.[sd21]' in the project's folder"
        ) from error


def find_device(name: str | torch.device) -> torch.device:
    """Raises ValueError for what is neither cpu nor cuda, CapsuleError for a GPU that is not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {str(name)!r} is neither cpu nor cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {str(name)!r} is neither cpu nor cuda")
    # A count alone would not do: a driver too old for this torch is counted, and of no use.
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise CapsuleError(f"device {str(name)!r} was asked for, but torch can use no such CUDA device here")
    return device


@while_making_networks()
def load_model(path: Path, config: CodecConfig) -> CodecModel:
    """The networks with the capsule's weights, in float32, evaluation mode and ready for exact coding.

    Raises CapsuleError for weights that do not fit the configuration or are too large for exact coding.
    """
    model = CodecModel(config)
    try:
        weights = load_tensors(path / WEIGHTS)
        model.load_state_dict({name: value.float() for name, value in weights.items()})
        model.entropy.freeze()
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CapsuleError(f"{path / WEIGHTS} does not fit its configuration: {error}") from error
    return model.eval().requires_grad_(False)


def load_tables(path: Path) -> EntropyTables:
    """The integer CDF tables of a capsule. Raises CapsuleError where it has none."""
    try:
        return EntropyTables.from_arrays(load_arrays(path / TABLES))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CapsuleError(f"{path / TABLES} holds no usable tables: {error}") from error

"""Writing the capsule of a model at full size: weights in shards, and all else that an archive needs to be read.

    config.json                        name, format, family, configuration, dtype of each part
    PART-00001-of-00003.safetensors …  weights under their official names, shards of at most 1 GiB
    model.safetensors.index.json       shard of each tensor
    tables.safetensors                 integer CDF tables of the entropy coder
    tags.json, tag_numbers.json        vocabulary with coding priors and thresholds; numbers of the tags
    tokenizer/…, licences/…            companions, as they were released
    provenance.json                    where each source came from, with size and SHA-256
    manifest.json                      fingerprint, and size and SHA-256 of every file

A capsule appears whole or not at all: it is written beside its place and renamed. At most one shard is in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors
from torch import Tensor

from difficmh.capsule import (
    CONFIG,
    FORMAT,
    INDEX,
    MANIFEST,
    PROVENANCE,
    TABLES,
    TAG_NUMBERS,
    VOCABULARY,
    share,
    write_manifest,
)
from difficmh.errors import CapsuleError
from difficmh.sd21.fetch import Fetched, require_space
from difficmh.taggers.ram_tags import TagList
from difficmh.vocabulary import Vocabulary

FAMILY = "sd21"
SHARD_BYTES = 1 << 30

KEPT_IN_FLOAT32 = ("lfgcm",)
"""The latent codec decides the symbols: rounded weights would be another codec, and save 0.1 GB of 4."""

NOT_DECODING = ("tagger",)
"""Parts that only an encoder runs: another tagger writes streams that every decoder reads alike."""

STORED_DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class CapsuleContents:
    """What goes into a capsule.

    `config` is what builds the networks, JSON only. `parts` are weights by part under their official names; views of a
    mapped file will do. `tables` are named int32 arrays. `companions` are files by their place in the capsule, those
    of `tokenizer/` being part of the fingerprint. `sources` are what the weights were made of, by role.
    """

    name: str
    config: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Tensor]]
    tables: Mapping[str, NDArray[np.int32]]
    vocabulary: Vocabulary
    tags: TagList
    companions: Mapping[str, Path] = field(default_factory=dict)
    sources: Mapping[str, Fetched] = field(default_factory=dict)


@dataclass(frozen=True)
class Shard:
    """A file of weights: its name, the names of its tensors, and their dtype."""

    file: str
    part: str
    names: tuple[str, ...]
    dtype: torch.dtype


def write_capsule(
    contents: CapsuleContents, directory: Path, *, dtype: str = "float32", shard_bytes: int = SHARD_BYTES
) -> str:
    """Writes a capsule to a directory that does not exist yet. Returns its fingerprint.

    `dtype`, float32 or bfloat16, is that of the weights, but for parts of `KEPT_IN_FLOAT32`. Raises CapsuleError where
    the directory exists, contents are unusable (weights that are no finite floats, tables that are not int32, names
    that leave the capsule or collide) or do not fit on the disk; nothing is left behind then.
    """
    if dtype not in STORED_DTYPES:
        raise CapsuleError(f"weights are stored as {' or '.join(STORED_DTYPES)}, not {dtype!r}")
    if directory.exists():
        raise CapsuleError(f"{directory} exists already")
    shards = plan_shards(contents.parts, STORED_DTYPES[dtype], shard_bytes)
    _check(contents, shards)
    directory.parent.mkdir(parents=True, exist_ok=True)
    require_space(directory.parent, _size(contents, shards))
    with _whole_or_not(directory) as fresh:
        _write_weights(fresh, contents.parts, shards)
        _write_descriptions(fresh, contents, shards)
        for place, file in contents.companions.items():
            (fresh / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, fresh / place)
        return write_manifest(fresh, decoding_files(contents, shards))


def plan_shards(parts: Mapping[str, Mapping[str, Tensor]], dtype: torch.dtype, shard_bytes: int) -> tuple[Shard, ...]:
    """Tensors of each part, sorted by name, in as few shards as the limit allows; a larger tensor has its own."""
    shards: list[Shard] = []
    for part, tensors in parts.items():
        stored = torch.float32 if part in KEPT_IN_FLOAT32 else dtype
        groups: list[list[str]] = []
        room = 0
        for name in sorted(tensors):
            size = tensors[name].numel() * stored.itemsize
            if not groups or size > room:
                groups.append([])
                room = shard_bytes
            groups[-1].append(name)
            room -= size
        count = len(groups)
        for number, names in enumerate(groups, 1):
            shards.append(Shard(f"{part}-{number:05}-of-{count:05}.safetensors", part, tuple(names), stored))
    return tuple(shards)


def decoding_files(contents: CapsuleContents, shards: Sequence[Shard]) -> tuple[str, ...]:
    """The files that decide what a bitstream means, in the order in which the fingerprint takes them.

    The index is not among them: its entries follow from the shards, and it lists those of the tagger too.
    """
    weights = [shard.file for shard in shards if shard.part not in NOT_DECODING]
    tokenizer = [place for place in contents.companions if place.startswith("tokenizer/")]
    return (CONFIG, *sorted(weights), TABLES, VOCABULARY, TAG_NUMBERS, *sorted(tokenizer))


# --- steps


def _check(contents: CapsuleContents, shards: Sequence[Shard]) -> None:
    for name, array in contents.tables.items():
        if array.dtype != np.int32:
            raise CapsuleError(f"table {name!r} is {array.dtype}, not int32")
    thresholds = sorted(zip(contents.tags.names, contents.tags.thresholds, strict=True))
    if thresholds != [(tag.name, tag.threshold) for tag in contents.vocabulary.tags]:
        raise CapsuleError("vocabulary and numbered list differ in their tags or thresholds")
    names = [name for tensors in contents.parts.values() for name in tensors]
    if len(set(names)) != len(names):
        raise CapsuleError("two parts have a tensor of one name")
    taken = {shard.file for shard in shards}
    taken |= {CONFIG, INDEX, PROVENANCE, MANIFEST, TABLES, VOCABULARY, TAG_NUMBERS}
    for place, file in contents.companions.items():
        path = PurePosixPath(place)
        if path.is_absolute() or ".." in path.parts or "\\" in place or str(path) != place or place in taken:
            raise CapsuleError(f"a companion cannot be stored as {place!r}")
        if not file.is_file():
            raise CapsuleError(f"there is no file {file} for {place}")


def _size(contents: CapsuleContents, shards: Sequence[Shard]) -> int:
    """Bytes that the capsule takes, but for small JSON files."""
    weights = sum(contents.parts[s.part][name].numel() * s.dtype.itemsize for s in shards for name in s.names)
    tables = sum(array.nbytes for array in contents.tables.values())
    return weights + tables + sum(file.stat().st_size for file in contents.companions.values())


@contextmanager
def _whole_or_not(directory: Path) -> Iterator[Path]:
    """A new directory beside the target that takes its place at the end, or vanishes with any exception."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        yield fresh
        fresh.chmod(0o755)  # mkdtemp's is for its owner alone
        os.rename(fresh, directory)
    except OSError as error:
        raise CapsuleError(f"{directory} was not written: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write_weights(folder: Path, parts: Mapping[str, Mapping[str, Tensor]], shards: Sequence[Shard]) -> None:
    for shard in shards:
        tensors = {name: _stored(name, parts[shard.part][name], shard.dtype) for name in shard.names}
        try:
            save_tensors(tensors, folder / shard.file, metadata={"format": "pt"})
        except (SafetensorError, RuntimeError) as error:
            raise CapsuleError(f"{shard.file} was not written: {error}") from error
        share(folder / shard.file)


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
        raise CapsuleError(f"{name} holds numbers that are no finite floats")
    return tensor.detach().to(dtype).contiguous()


def _write_descriptions(folder: Path, contents: CapsuleContents, shards: Sequence[Shard]) -> None:
    dtypes = {shard.part: str(shard.dtype).removeprefix("torch.") for shard in shards}
    config = {"format": FORMAT, "family": FAMILY, "name": contents.name, "codec": contents.config, "dtypes": dtypes}
    _write_json(folder / CONFIG, config)
    total = sum((folder / shard.file).stat().st_size for shard in shards)
    places = {name: shard.file for shard in shards for name in shard.names}
    _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    arrays = {name: np.ascontiguousarray(array) for name, array in contents.tables.items()}
    save_arrays(arrays, folder / TABLES)
    share(folder / TABLES)
    contents.vocabulary.save(folder / VOCABULARY)
    contents.tags.save_numbers(folder / TAG_NUMBERS)
    _write_json(folder / PROVENANCE, {role: _origin(source) for role, source in contents.sources.items()})


def _origin(source: Fetched) -> dict[str, Any]:
    return {"location": public_location(source.location), "sha256": source.sha256, "size": source.size}


def public_location(location: str) -> str:
    """What a capsule that is passed on may say: no password or signature of an address, no folder of a local file."""
    if "://" not in location:
        return Path(location).name
    address = urlsplit(location)
    return urlunsplit((address.scheme, address.netloc.rpartition("@")[2], address.path, "", ""))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

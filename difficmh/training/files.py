"""The picture files of tar shards and folders, each with the JSON beside it.

    a.jpg a.json                    `a` with that JSON
    a.left.jpg a.right.jpg a.json   `a.left` and `a.right`, both with it; `a.left.json` would go first
    a.jpg a.png                     `a` and `a.png`
    a.jpg a.json … a.jpg a.json     `a` and `a~2`, in a shard, each with its own JSON
    ._a.jpg __MACOSX/a.jpg          no data: hidden files and the traces of macOS

The keys of a shard are those under which compression archives its pictures. Those of a folder are paths in it.
"""

from __future__ import annotations

import json
import lzma
import os
import posixpath
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from difficmh.images import SUFFIXES

LABEL_SUFFIX = ".json"

Label = TypeVar("Label", bytes, Path)
Round: TypeAlias = tuple[str, int]
"""WebDataset's key, and how often it has begun anew in the shard before."""


@dataclass(frozen=True)
class PictureFile:
    """A file that its name calls a picture, and the JSON object beside it (empty without a readable one)."""

    key: str
    data: bytes
    metadata: dict[str, Any]


def picture_files(paths: Iterable[Path], passed_over: Counter[str]) -> Iterator[PictureFile]:
    """All pictures of tar shards or folders, in order; `passed_over` counts by suffix what is neither that nor JSON.

    Raises FileNotFoundError for a path where nothing is, ValueError for a folder with shards in it, a damaged shard, or
    a picture by itself.
    """
    for path in paths:
        if path.is_file() and _suffix(path.name) in SUFFIXES:
            raise ValueError(f"{path} is a picture: name the folder that it is in, or a tar of such")
        yield from _of_folder(path, passed_over) if path.is_dir() else _of_shard(path, passed_over)


def _of_folder(folder: Path, passed_over: Counter[str]) -> Iterator[PictureFile]:
    found = ((_data_name(file.relative_to(folder).as_posix()), file) for file in sorted(folder.rglob("*")))
    files = {name: file for name, file in found if name and file.is_file()}
    if shards := [file for name, file in files.items() if _suffix(name) == ".tar"]:
        raise ValueError(f"{folder} is a folder with shards, such as {shards[0]}: name the shards themselves")
    labels = {_stem(name): file for name, file in files.items() if _suffix(name) == LABEL_SUFFIX}
    for name, file in files.items():
        if _suffix(name) in SUFFIXES:
            beside = _beside(name, labels)
            yield PictureFile(name, file.read_bytes(), _parsed(beside.read_bytes()) if beside else {})
        elif _suffix(name) != LABEL_SUFFIX:
            passed_over[_suffix(name)] += 1


def _of_shard(path: Path, passed_over: Counter[str]) -> Iterator[PictureFile]:
    files: list[tuple[str, bytes]] = []
    for name, data in _tar_files(path):
        if _suffix(name) in SUFFIXES or _suffix(name) == LABEL_SUFFIX:
            files.append((name, data))
        else:
            passed_over[_suffix(name)] += 1
    labels: dict[Round, dict[str, bytes]] = {}
    pictures: list[tuple[str, Round, bytes]] = []
    for (name, data), place in zip(files, _rounds([name for name, _ in files]), strict=True):
        if _suffix(name) == LABEL_SUFFIX:
            labels.setdefault(place, {}).setdefault(_stem(name), data)
        else:
            pictures.append((name, place, data))
    keys = _keys([(name, place) for name, place, _ in pictures])
    for key, (name, place, data) in zip(keys, pictures, strict=True):
        yield PictureFile(key, data, _parsed(_beside(name, labels.get(place, {})) or b""))


def _tar_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the data in a tar, plain or compressed, and in tars that were joined to it.

    Raises ValueError where it is damaged: nobody knows how many pictures are behind the damage. The standard library
    takes a damaged header, or a cut between two members, for the end of a tar, so the end is looked at here.
    """
    with path.open("rb") as file:
        try:
            tar = tarfile.open(fileobj=file)  # noqa: SIM115 - of the file, which is closed
            yield from _members(tar)
            while _goes_on(tar.fileobj, tar.offset):
                tar = tarfile.open(fileobj=tar.fileobj, mode="r:")  # noqa: SIM115
                yield from _members(tar)
        except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error, lzma.LZMAError) as error:
            reason = str(error).partition(":\n")[0]  # without what each kind of compression had to say
            raise ValueError(f"{path} is damaged, or no tar: {reason}; mend it or leave it out") from error


def _members(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        name = _data_name(member.name)
        file = tar.extractfile(member) if name else None
        if file is not None:
            yield name, file.read()


def _goes_on(stream: Any, end: int) -> bool:
    """Whether another tar follows the one that ended at byte `end` of an open stream; that is at its start then.

    Raises tarfile.ReadError where there is no end mark.
    """
    stream.seek(end)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise tarfile.ReadError(f"neither a file nor the end of the tar at byte {end}")
    while block and not any(block):
        block = stream.read(tarfile.BLOCKSIZE)
    stream.seek(-len(block), os.SEEK_CUR)
    return bool(block)


def _data_name(name: str) -> str:
    """`name` without `./`, `..` and leading `/`; empty for what is no data, `__name__` files of WebDataset included."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    base = parts[-1] if parts else "."
    is_data = not base.startswith(".") and not (base.startswith("__") and base.endswith("__"))
    return "/".join(parts) if is_data and "__MACOSX" not in parts else ""


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _group(name: str) -> tuple[str, str]:
    """WebDataset's key, the path up to the first dot of the base name, and the rest in lower case."""
    folder, base = posixpath.split(name)
    stem, _, extension = base.partition(".")
    return posixpath.join(folder, stem), extension.lower()


def _rounds(names: Sequence[str]) -> list[Round]:
    """To which round each of the pictures and JSON files of a shard belongs.

    Where a name comes again after a picture its group begins anew, as where shards were joined together.
    """
    extensions = defaultdict[Round, set[str]](set)
    pictured = set[Round]()
    last = Counter[str]()
    places = []
    for name in names:
        group, extension = _group(name)
        place = group, last[group]
        if extension in extensions[place] and place in pictured:
            last[group] += 1
            place = group, last[group]
        extensions[place].add(extension)
        if _suffix(name) in SUFFIXES:
            pictured.add(place)
        places.append(place)
    return places


def _keys(pictures: Sequence[tuple[str, Round]]) -> list[str]:
    """A key of its own for each picture of a shard: WebDataset's, and more of its name where others share that."""
    pictures_of = Counter(place for _, place in pictures)
    plain: dict[Round, str] = {}  # extension of the first picture that has no `left` as `left.jpg` has
    copies = Counter[str]()
    keys: dict[str, None] = {}
    for name, place in pictures:
        group, number = place
        extension = _group(name)[1]
        prefix = extension.rpartition(".")[0]
        is_plain = not prefix and plain.setdefault(place, extension) == extension
        distinction = prefix or ("" if is_plain else extension)
        shares_its_key = number or pictures_of[place] > 1
        key = unique = f"{group}.{distinction}" if distinction and shares_its_key else group
        while unique in keys:
            copies[key] = max(copies[key], 1) + 1
            unique = f"{key}~{copies[key]}"
        keys[unique] = None
    return list(keys)


def _beside(name: str, labels: Mapping[str, Label]) -> Label | None:
    """The JSON of a picture's own name, else that of its group."""
    return labels.get(_stem(name), labels.get(_group(name)[0]))


def _parsed(text: bytes) -> dict[str, Any]:
    """A JSON object; empty for anything else, which is no reason to lose the picture."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}

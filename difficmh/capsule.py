"""A model capsule: the directory that holds everything a codec needs, hashed.

    config.json          name, format, configuration of the networks
    model.safetensors    weights in half precision
    tables.safetensors   integer CDF tables of the entropy coder
    tags.json            tag vocabulary with coding priors and thresholds
    tagger.safetensors   head of the tagger
    MODEL_CARD.md, …     what a person should know
    manifest.json        fingerprint, and size and SHA-256 of every file; written last

Beside these there may be a record of one machine, which is no part of the capsule (`verified.py`).
No torch here: jobs read capsules in processes that hold no networks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from difficmh.errors import CapsuleError
from difficmh.verified import Verified

FORMAT = 1
CONFIG, WEIGHTS, TABLES, VOCABULARY = "config.json", "model.safetensors", "tables.safetensors", "tags.json"
TAG_NUMBERS = "tag_numbers.json"
"""Numbers of the tags, in a capsule whose tags have any."""

INDEX = f"{WEIGHTS}.index.json"
"""The shard of each tensor, in a capsule whose weights are shards."""

MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
"""Where the files came from that a capsule of a released model was made of, by role; others have none."""

DECODING_FILES = (CONFIG, WEIGHTS, TABLES, VOCABULARY)
"""The files that decide what a bitstream means in a capsule of `lite`; the fingerprint covers these.

A manifest of another family names its own in the entry `decoding`.
"""

TAGGER_FILE = re.compile(r"tagger(-\d+-of-\d+)?\.safetensors")
"""Weights of a tagger: the file of `lite`, or the shards of a model at full size."""

BUILT_IN = Path(__file__).parent / "capsules"

MODELS_VARIABLE = "DIFFICMH_MODELS"
FETCHABLE = re.compile(r"sd21-r\d+")
"""Names of released models that `difficmh models fetch` makes capsules of."""


def models_folder() -> Path:
    """Where fetched capsules lie: `DIFFICMH_MODELS`, or `difficmh/models` in the user's folder for caches.

    A user without a home (in a container, say) has the folder for temporary files.
    """
    if place := os.environ.get(MODELS_VARIABLE):
        return Path(place)
    caches = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(caches) if caches else Path.home() / ".cache") / "difficmh" / "models"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "difficmh" / "models"


def built_in_names() -> list[str]:
    """Names of the capsules that come with this package, and so are wherever it is."""
    return _names(BUILT_IN)


def capsule_names() -> list[str]:
    """Names of the capsules that come with this package and of those that were fetched to this machine."""
    return sorted({*_names(BUILT_IN), *_names(models_folder())})


def _names(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob(f"[!.]*/{MANIFEST}"))  # hidden: what a fetch left behind


def capsule_path(name: str | Path) -> Path:
    """The directory of a built-in or fetched capsule by its name or, for a path, that directory.

    A name is a text without a slash: `./lite` is a directory here. Raises CapsuleError where there is none.
    """
    named = isinstance(name, str) and name == os.path.basename(name)
    places = (BUILT_IN / name, models_folder() / name) if named else ()
    for candidate in (*places, Path(name)):
        if (candidate / MANIFEST).is_file():
            return candidate
    if FETCHABLE.fullmatch(str(name)):
        raise CapsuleError(f"{name} is not on this machine: `difficmh models fetch {name}` makes its capsule")
    place = Path(name).resolve()
    lack = f"has no {MANIFEST}" if place.is_dir() else "is no directory"
    fetching = "; make it once: difficmh models fetch sd21-r4" if str(name).startswith("sd21") else ""
    here = ", ".join(capsule_names()) or "none"
    raise CapsuleError(f"no codec {str(name)!r}: here are {here}, and {place} {lack}{fetching}")


def capsule_of(fingerprint: str) -> Path | None:
    """The directory of a capsule with a name by the first digits of its fingerprint; None where there is none here."""
    for name in capsule_names():
        with suppress(CapsuleError):  # a damaged capsule must not hide another
            path = capsule_path(name)
            if capsule_fingerprint(path).startswith(fingerprint):
                return path
    return None


def capsule_or_path(text: str) -> Path:
    """`capsule_path`, or what else there is under that path, such as a file; absolute.

    Raises CapsuleError where there is nothing.
    """
    try:
        return capsule_path(text).absolute()
    except CapsuleError:
        if not Path(text).exists():
            raise
        return Path(text).absolute()


def capsule_fingerprint(path: Path) -> str:
    """16 hexadecimal digits that identify configuration and weights, from the manifest."""
    return str(read_manifest(path)["fingerprint"])


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a capsule. Raises CapsuleError where it is missing, no manifest, or of a later format."""
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise CapsuleError(f"{path} has capsule format {manifest['format']}, this version reads {FORMAT}")
        _check_manifest(manifest)
    except CapsuleError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CapsuleError(f"{path} is no model capsule: {error}") from error
    return manifest


def _check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raises KeyError or TypeError for one of this format that lacks something or holds other kinds of values."""
    if not isinstance(manifest["fingerprint"], str) or not isinstance(manifest["files"], dict):
        raise TypeError("fingerprint or files are of another kind")
    if not all(_is_entry(entry) for entry in manifest["files"].values()):
        raise TypeError("files are not listed by size and hash")
    decoding = manifest.get("decoding", [])
    if not isinstance(decoding, list) or not all(isinstance(name, str) for name in decoding):
        raise TypeError("decoding is no list of files")


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)


def read_config(path: Path) -> dict[str, Any]:
    """The contents of `config.json`. Raises CapsuleError where it is missing or unreadable."""
    try:
        config: dict[str, Any] = json.loads((path / CONFIG).read_text())
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise CapsuleError(f"{path} has no readable {CONFIG}: {error}") from error
    return config


def read_name(path: Path) -> str:
    """The name of a capsule's codec: that in `config.json`, or the folder's. Raises CapsuleError as `read_config`."""
    return str(read_config(path).get("name", path.name))


def write_manifest(path: Path, decoding: Sequence[str] = DECODING_FILES) -> str:
    """Seals a capsule: hashes every file in it and writes the manifest. Returns the fingerprint.

    Hidden files, such as a record of one machine (`verified.py`) or those of desktops and editors, are no part of it.

    `decoding` are the files, relative to the capsule, that the fingerprint covers, in this order. Raises CapsuleError
    where one of them is missing.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != MANIFEST)
    names = (file.relative_to(path) for file in files)
    shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
    entries = {name.as_posix(): _entry(path / name) for name in shown}
    manifest = {"format": FORMAT, "fingerprint": _fingerprint(path, decoding, entries), "files": entries}
    if tuple(decoding) != DECODING_FILES:
        manifest["decoding"] = list(decoding)
    (path / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return str(manifest["fingerprint"])


def share(file: Path) -> None:
    """Gives a file the permissions of any other that this process makes: safetensors' are for their owner alone."""
    mask = os.umask(0)  # there is no other way to ask for it
    os.umask(mask)
    file.chmod(0o666 & ~mask)


def verify_decoding(path: Path) -> None:
    """Checks the files that decide what a bitstream means and what its picture looks like. Raises CapsuleError.

    Large ones that were found intact before are not read again, as `verify` says.
    """
    verify(path, _decoding_files(read_manifest(path)), again=False)


def verify_tagger(path: Path) -> None:
    """Checks the tagger's weights, which decoding does not need, and the files that name what it finds.

    An altered one would give other tags, or other scores, and nobody would notice. Raises CapsuleError as `verify`, and
    where the manifest lists none.
    """
    listed = read_manifest(path)["files"]
    weights = [name for name in listed if TAGGER_FILE.fullmatch(name)]
    if not weights:
        raise CapsuleError(f"the manifest of {path} lists no tagger")
    verify(path, [*weights, *(name for name in (VOCABULARY, TAG_NUMBERS) if name in listed)], again=False)


def verify(path: Path, names: Iterable[str] | None = None, *, again: bool = True) -> None:
    """Checks files against the manifest, `names` or all it lists, and the fingerprint against the manifest's hashes.

    `again=False` does not read large files that were found intact before and have not been touched since. Raises
    CapsuleError that names what is missing or altered.
    """
    manifest = read_manifest(path)
    entries, record = manifest["files"], Verified(path)
    for name in entries if names is None else names:
        if name not in entries:
            raise CapsuleError(f"the manifest of {path} does not list {name}")
        if not (path / name).is_file():
            raise CapsuleError(f"{path} lacks {name}")
        if again or not record.knows(name, entries[name]["sha256"]):
            _verify_file(path, name, entries[name], record)
    if _fingerprint(path, _decoding_files(manifest), entries) != manifest["fingerprint"]:
        raise CapsuleError(f"{path / MANIFEST} states another fingerprint than its files have")
    record.save()


def _decoding_files(manifest: Mapping[str, Any]) -> Sequence[str]:
    files: Sequence[str] = manifest.get("decoding", DECODING_FILES)
    return files


def _verify_file(path: Path, name: str, entry: Mapping[str, Any], record: Verified) -> None:
    before = (path / name).stat()
    if _entry(path / name) != entry:
        raise CapsuleError(f"{path / name} is not the file that the manifest describes")
    record.remember(name, entry["sha256"], before)


def _fingerprint(path: Path, decoding: Sequence[str], entries: Mapping[str, Mapping[str, Any]]) -> str:
    if missing := [name for name in decoding if name not in entries]:
        raise CapsuleError(f"{path} lacks {', '.join(missing)}")
    digest = hashlib.sha256("".join(f"{name}:{entries[name]['sha256']}\n" for name in decoding).encode())
    return digest.hexdigest()[:16]


def _entry(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

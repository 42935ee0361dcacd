"""File names made of image keys, which come from strangers' tars and may hold anything."""

from __future__ import annotations

import hashlib
import re

MAX_COMPONENT = 180
"""Bytes; file systems allow 255, and extensions and counters come on top."""

MAX_NAME = 700
"""Bytes; object stores allow 1,024 with the archive's own path."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_FILE_LIKE = re.compile(r"\.(jpe?g|png|webp|json)$", re.IGNORECASE)


def safe_name(key: str) -> str:
    """A relative path for `key` that stays inside its folder and is legal everywhere; most keys are left as they are.

    Folders of a key stay folders. No component is `..`, hidden, or so long that a file system refuses it, and no
    folder is called like a picture, so that one key cannot be the folder of another's file.
    """
    components = [_component(component) for component in key.split("/") if component not in ("", ".")]
    folders = [f"{folder}_" if _FILE_LIKE.search(folder) else folder for folder in components[:-1]]
    name = "/".join([*folders, *components[-1:]]) or "_"
    return name if len(name.encode()) <= MAX_NAME else _shortened(name.replace("/", "_"))


def _component(text: str) -> str:
    safe = _UNSAFE.sub("_", text)
    if safe.startswith("."):
        safe = "_" + safe.lstrip(".")
    return safe if len(safe.encode()) <= MAX_COMPONENT else _shortened(safe)


def _shortened(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    head = text.encode()[: MAX_COMPONENT - len(digest) - 1].decode(errors="ignore")
    return f"{head}-{digest}"

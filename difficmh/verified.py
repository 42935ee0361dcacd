"""Which large files of a capsule were found intact before, so that loading does not hash gigabytes each time.

A record beside the manifest holds what the file system said of a file when it was hashed: size, inode, and the times of
the last change of content and of status. The latter cannot be set back, so that whoever writes to a file shows. What
changes without a trace, such as a disk that decays, is found by hashing again: `difficmh models verify`.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

RECORD = ".verified.json"

LARGE = 64 << 20
"""Bytes from which on a file is remembered; smaller ones, all of the built-in capsule among them, are soon hashed."""

SETTLED = 2_000_000_000
"""Nanoseconds that a file must not have changed for: within a tick of the clock, two versions have one time."""

State: TypeAlias = dict[str, int | str]


class Verified:
    """The record of one capsule. A folder that cannot be written to has none: its files are hashed each time."""

    def __init__(self, capsule: Path) -> None:
        self._capsule = capsule
        self._known = _read(capsule / RECORD)
        self._changed = False

    def knows(self, name: str, sha256: str) -> bool:
        """Whether the file had this SHA-256 when it was hashed, and has not been touched since."""
        state = self._state(name, sha256)
        return state is not None and self._known.get(name) == state

    def remember(self, name: str, sha256: str, before: os.stat_result) -> None:
        """Notes that the file has this SHA-256; `before` is its status from before it was hashed.

        Nothing is noted of a small file, or of one that has just changed or may have while it was read.
        """
        state = self._state(name, sha256)
        if state is None or state != _describe(before, sha256):
            return
        if time.time_ns() - max(before.st_mtime_ns, before.st_ctime_ns) >= SETTLED and self._known.get(name) != state:
            self._known[name] = state
            self._changed = True

    def save(self) -> None:
        """Writes the record, whole or not at all, where it changed and the folder can be written to."""
        if not self._changed:
            return
        with suppress(OSError):
            handle, fresh = tempfile.mkstemp(prefix=f"{RECORD}.", dir=self._capsule)
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump(self._known, file, indent=1)
                os.chmod(fresh, 0o644)  # mkstemp's is for its owner alone
                os.replace(fresh, self._capsule / RECORD)
            except OSError:
                os.unlink(fresh)

    def _state(self, name: str, sha256: str) -> State | None:
        try:
            found = (self._capsule / name).stat()
        except OSError:
            return None
        return _describe(found, sha256) if found.st_size >= LARGE else None


def _describe(found: os.stat_result, sha256: str) -> State:
    times = {"mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}
    return {"sha256": sha256, "bytes": found.st_size, "inode": found.st_ino, **times}


def _read(record: Path) -> dict[str, State]:
    """What the record says; nothing where it is missing or damaged."""
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}

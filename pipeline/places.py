"""Where a job may put its output: not where that would be lost, and not among files of others."""

from __future__ import annotations

from pipeline.errors import JobError
from pipeline.storage import Storage

RAY_S_COPY = "/runtime_resources/working_dir_files/"
"""Part of the path of the folder that Ray unpacks a job's `--working-dir` into, starts it in, and deletes later."""


def check_lasting(place: str) -> None:
    """Raises JobError for a path or URL in Ray's copy of a working folder, as relative ones of a submitted job are."""
    if RAY_S_COPY in f"{place}/":
        raise JobError(f"{place} is in Ray's own copy of the working folder: give an absolute path or a URL")


def check_empty(storage: Storage) -> None:
    """Raises JobError where an output that is not begun yet would lie among other files; hidden ones do not count."""
    if found := storage.something():
        raise JobError(f"{storage.url} holds other files, such as {found}: choose an empty place")

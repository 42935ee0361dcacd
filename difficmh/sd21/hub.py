"""What a hub of model repositories says of a file: `hub://OWNER/NAME[@REVISION]/PATH` to a URL of these very contents.

Hubs are asked, and bring nothing: that is for `fetch.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

from difficmh.errors import CapsuleError
from difficmh.sd21.sources import SHA256

HUB = re.compile(r"hub://(?P<repository>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?/(?P<path>.+)")


@dataclass(frozen=True)
class RemoteFile:
    """What a hub says of a file, None where it does not, and the URL of these very contents."""

    url: str
    revision: str | None
    sha256: str | None
    size: int | None


class Hub(Protocol):
    """A hub of model repositories, as `HuggingFaceHub`."""

    def describe(self, repository: str, revision: str | None, path: str) -> RemoteFile: ...


def parse_hub(location: str) -> tuple[str, str | None, str]:
    """Repository, revision (None for the newest) and path of a `hub://` location. Raises CapsuleError for another."""
    found = HUB.fullmatch(location)
    if found is None:
        raise CapsuleError(f"{location!r} is not hub://OWNER/NAME[@REVISION]/PATH")
    return found["repository"], found["revision"], found["path"]


class HuggingFaceHub:
    """The Hugging Face hub, asked through its own client.

    The client downloads nothing: from version 2 on, it starts an interrupted file anew.
    """

    def describe(self, repository: str, revision: str | None, path: str) -> RemoteFile:
        """Commit, its URL, size and, for large files, SHA-256.

        Raises CapsuleError where the client is not installed or the hub does not answer as wanted.
        """
        client = _hub_client()
        try:
            found = client.get_hf_file_metadata(client.hf_hub_url(repository, path, revision=revision))
            commit = found.commit_hash or revision
            url = client.hf_hub_url(repository, path, revision=commit)
        except Exception as error:  # of whatever library the client speaks http with, which has changed before
            raise CapsuleError(f"{repository}/{path} cannot be had from the hub: {error!r}") from error
        etag = found.etag or ""
        return RemoteFile(url, commit, etag if SHA256.fullmatch(etag) else None, found.size)


def _hub_client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise CapsuleError(
            "files of a hub need the package huggingface_hub: pip install '.[sd21]' in the project's folder"
        ) from error
    return huggingface_hub

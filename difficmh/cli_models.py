"""What `difficmh models` says of models; `models fetch`: the capsule of a released one, made once from its files."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from difficmh.capsule import PROVENANCE, capsule_fingerprint, capsule_path, models_folder, read_name, verify
from difficmh.errors import CapsuleError
from difficmh.sd21.fetch import Fetched, Fetcher, Opener
from difficmh.sd21.http_stream import open_http
from difficmh.sd21.plan import CAPSULE_BYTES, PRESETS, check_before, describe, fetch_all, plan, remove_downloads
from difficmh.vocabulary import capsule_prior

TOKENIZER_FILES = ("vocab.json", "merges.txt")

DOWNLOADS = "downloads"
"""Folder beside the capsules that keeps what was downloaded."""

Assemble = Callable[[str, dict[str, Fetched], Path, str], str]

OPENED_HERE = ("http", "https", "hub")
"""Schemes that need no client of an object store. `jobs/fetch_model.py` has one, and takes the others."""

FETCH = """Make the capsule of a released model of the paper from its files, which are fetched where they are not here.
A LOCATION is a file, {kinds}, or hub://OWNER/NAME[@REVISION]/PATH of the Hugging Face hub; with
#sha256=DIGEST after it, other contents are refused. Interrupted downloads are continued by the same command. The files
of the released models have licences of their own, which the capsule holds; docs/sd21.md names them."""


def add_fetch(command: argparse.ArgumentParser, kinds: str = "an http(s) address") -> None:
    """The options of `models fetch`; `kinds` are the addresses that are opened beside those of a hub."""
    command.description = FETCH.format(kinds=kinds)
    command.add_argument("model", choices=sorted(PRESETS, key=PRESETS.__getitem__), help="the larger r, the fewer bits")
    command.add_argument("--checkpoint", metavar="LOCATION", help="default: the one that was released")
    command.add_argument(
        "--stable-diffusion",
        metavar="LOCATION",
        help="file of weights of UNet, autoencoder and text tower (default: those in the checkpoint)",
    )
    command.add_argument(
        "--tagger", metavar="LOCATION", help="file of RAM++ weights (default: those in the checkpoint)"
    )
    command.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="folder with CLIP's vocab.json and merges.txt (default: downloaded from the Stable Diffusion mirror)",
    )
    command.add_argument("--dtype", choices=sorted(CAPSULE_BYTES), default="float32", help="of the stored weights")
    command.add_argument(
        "--output", dest="capsule", metavar="DIR", help="default: the model's name in the folder of models"
    )
    command.add_argument(
        "--remove-downloads", action="store_true", help="once the capsule is verified; files given by path stay"
    )
    command.add_argument("--dry-run", action="store_true", help="say what would be downloaded, and end")


def fetch(options: argparse.Namespace) -> int:
    """As `difficmh` does it: from files, http(s) and a hub. Raises CapsuleError, also for other addresses."""
    for location in (options.checkpoint, options.stable_diffusion, options.tagger):
        scheme, mark, _ = (location or "").partition("://")
        if mark and scheme.lower() not in OPENED_HERE:
            raise CapsuleError(f"{location}: for {scheme}:// run `python jobs/fetch_model.py`, with the same options")
    return make_capsule(options, open_http)


def make_capsule(options: argparse.Namespace, opener: Opener) -> int:
    """Plans, checks, fetches and assembles; every refusal that can come early comes before a byte is downloaded.

    `options` are those of `add_fetch`. Returns 0; raises CapsuleError, what `opener` raises, and KeyboardInterrupt also
    on SIGTERM.
    """
    root = models_folder()
    downloads, output = root / DOWNLOADS, Path(options.capsule) if options.capsule else root / options.model
    others = {
        "checkpoint": options.checkpoint,
        "stable_diffusion": options.stable_diffusion,
        "tagger": options.tagger,
        **{f"tokenizer/{name}": str(Path(options.tokenizer, name)) for name in TOKENIZER_FILES if options.tokenizer},
    }
    files = plan(options.model, others, downloads)
    print(*describe(files, output, options.dtype), sep="\n", flush=True)
    if options.dry_run:
        return 0
    assemble = _assembler()
    check_before(files, downloads, output, options.dtype)
    with _interrupted_by_sigterm():
        fetched = fetch_all(files, Fetcher(downloads, opener))
        print("all files are here and intact; writing the capsule", flush=True)
        fingerprint = assemble(options.model, fetched, output, options.dtype)
    print(f"{options.model}: fingerprint {fingerprint}, in {output}")
    verify(output)
    if options.remove_downloads:
        print(f"removed {remove_downloads(files, fetched, downloads) / 1e9:.2f} GB from {downloads}")
    elif downloads.is_dir():
        print(f"What was downloaded stays in {downloads}. That folder may be deleted; another fetch fills it again.")
    return 0


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """As by Ctrl-C, so that a capsule that is half written goes, whoever ends the work of an hour."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _assembler() -> Assemble:
    """Imported only now: it takes torch, and packages of an extra. Raises CapsuleError where these are missing."""
    try:
        from difficmh.sd21.preset import assemble
    except ImportError as error:
        raise CapsuleError(
            f"the paper's model needs more packages ({error}): pip install '.[sd21]' in the project's folder"
        ) from error
    return assemble


def list_tags(options: argparse.Namespace) -> int:
    """The names of a model's vocabulary, sorted, one a line.

    Raises CapsuleError where there is no such model, or its vocabulary is not the one it was sealed with. Whoever
    reads them may stop early, as `head` does.
    """
    names = capsule_prior(capsule_path(options.model)).names
    try:
        print(*names, sep="\n", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it at its end
    return 0


def describe_model(name: str) -> dict[str, Any]:
    """What a model's capsule says of itself, and of the files it was made of where these are recorded.

    Raises CapsuleError where there is no such capsule, or what it says cannot be read.
    """
    path = capsule_path(name)
    try:
        sources = json.loads((path / PROVENANCE).read_text())
    except FileNotFoundError:
        sources = {}
    except (OSError, ValueError) as error:
        raise CapsuleError(f"{path / PROVENANCE} cannot be read: {error}") from error
    fingerprint = capsule_fingerprint(path)
    return {"model": read_name(path), "fingerprint": fingerprint, "directory": str(path), "sources": sources}


def model_lines(described: Mapping[str, Any]) -> str:
    """The same for a person."""
    head = f"{described['directory']}: model {described['model']}, fingerprint {described['fingerprint']}"
    sources = described["sources"].items()
    return "\n".join([head, *(f"  {role}: {_origin(source)}" for role, source in sources)])


def _origin(source: Mapping[str, Any]) -> str:
    return f"{source['location']}, {source['size']:,} bytes, SHA-256 {source['sha256']}"

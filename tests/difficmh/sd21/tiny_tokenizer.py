"""A CLIP tokenizer's files without its vocabulary: single bytes, and the merges that a test gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from difficmh.sd21.text import BEGIN, END

PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]


def write_tokenizer(directory: Path, merges: Sequence[str] = ()) -> Path:
    """Writes `vocab.json` and `merges.txt`: CLIP's ids for bytes, then for merges as `"th e</w>"`, and its two ends."""
    others = [byte for byte in range(256) if byte not in PRINTABLE]
    letters = [chr(byte) for byte in PRINTABLE] + [chr(256 + place) for place in range(len(others))]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    vocabulary |= {"<|startoftext|>": BEGIN, "<|endoftext|>": END}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return directory

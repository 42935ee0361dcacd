"""Where the files of the presets `sd21-r{2,4,8,16,32}` come from.

A checkpoint holds Stable Diffusion 2.1 and RAM++ beside what was trained. Sizes, SHA-256 and revisions are stated where
known; the first fetch records the others (`fetch.py`).
Source: Diff-ICMH, official implementation (commit below) and its instructions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from difficmh.errors import CapsuleError

RATES = (2, 4, 8, 16, 32)
"""Weights of the rate in the loss of the released models; a larger one means fewer bits."""

OFFICIAL_CODE = "https://raw.githubusercontent.com/RuoyuFeng/Diff-ICMH/01366f0afe8983eab423bb9a804beb2e02043100/"
TAG_FOLDER = f"{OFFICIAL_CODE}src/recognize-anything/"
STABLE_DIFFUSION_CODE = (
    "https://raw.githubusercontent.com/Stability-AI/stablediffusion/cf1d67a6fd5ea1aa600c4df58e5b47da45f6bdbf/"
)
STABLE_DIFFUSION_MIRROR = "hub://Manojb/stable-diffusion-2-1-base"
CHECKPOINT_BYTES = 11_654_100_259
"""Of the model of rate 4. The others have the same tensors, and so the same size but for small text."""

SHA256 = re.compile(r"[0-9a-f]{64}")
STATED_DIGEST = re.compile(r"(?P<location>.+)#sha256=(?P<digest>[0-9a-fA-F]{64})")


@dataclass(frozen=True)
class Source:
    """A file and what is known of it.

    `location` is a local path, a URL, or `hub://OWNER/NAME[@REVISION]/PATH` for a repository of the Hugging Face hub.
    `sha256` (64 lower-case hexadecimal digits) and `size` (bytes) are checked where they are stated. `about` is what
    size to expect where none is: for plans, never checked.
    """

    location: str
    sha256: str | None = None
    size: int | None = None
    about: int | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        """A location as a person gives it, its SHA-256 after it or not: `s3://bucket/model.ckpt#sha256=…`.

        Raises CapsuleError for a mistyped one, which would else become a part of the location that nobody checks.
        """
        stated = STATED_DIGEST.fullmatch(text)
        if stated is None and "#sha256=" in text.lower():
            raise CapsuleError(f"{text} states no SHA-256: 64 hexadecimal digits after #sha256=")
        return cls(stated["location"], stated["digest"].lower()) if stated else cls(text)


def preset_sources(rate: int) -> Mapping[str, Source]:
    """Role to source of all that the capsule of a released model needs. Raises ValueError for a rate without model.

    Roles with a slash are companions: files that go into the capsule under that name.
    """
    if rate not in RATES:
        raise ValueError(f"there is no model of rate {rate}; there are {', '.join(map(str, RATES))}")
    folder = f"CNscale1.0_1_1_{rate}_2_WTagGCM_bs16x1_lr0.00005_cfg7.0"
    checkpoint = f"hub://RuoyuFeng/Diff-ICMH/difficmh_models/{folder}/model.ckpt"
    size = CHECKPOINT_BYTES if rate == 4 else None
    return {"checkpoint": Source(checkpoint, size=size, about=CHECKPOINT_BYTES), **SHARED}


SHARED: Mapping[str, Source] = {
    "tag_names": Source(
        f"{TAG_FOLDER}ram/data/ram_tag_list.txt",
        "5d96d2f7225527480ad773aaac76b6e5c08a18adf6eae9ca7d2ab923d5e7bd8b",
        41_904,
    ),
    "tag_thresholds": Source(
        f"{TAG_FOLDER}ram/data/ram_tag_list_threshold.txt",
        "b6f81d0de1bc7f9c251af512c413eae976c77dbfbadf700d4e3d90510f4c6447",
        22_016,
    ),
    "tokenizer/vocab.json": Source(f"{STABLE_DIFFUSION_MIRROR}/tokenizer/vocab.json", about=1_060_000),
    "tokenizer/merges.txt": Source(f"{STABLE_DIFFUSION_MIRROR}/tokenizer/merges.txt", about=525_000),
    "licences/Diff-ICMH.txt": Source(
        f"{OFFICIAL_CODE}LICENSE",
        "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
        11_357,
    ),
    "licences/RAM.txt": Source(
        f"{TAG_FOLDER}LICENSE",
        "d38f4edcfb09332fa497fd3ce52bd6c13dd73fa5acb8418a47aece5a2d311f26",
        11_306,
    ),
    "licences/RAM-NOTICE.txt": Source(
        f"{TAG_FOLDER}NOTICE.txt",
        "ddb1bf4cb85cefefacc718b470a7b6cef644a45aba338219b03ee0bbe0c60537",
        25_888,
    ),
    "licences/Stable-Diffusion-2.txt": Source(
        f"{STABLE_DIFFUSION_CODE}LICENSE-MODEL",
        "e514164be7f2ca2c0fb39e7283b01ab4a06d802837eaf171aa4645cfd7ee1157",
        14_206,
    ),
}
"""What all presets share. Hashes are those of the files at the commits in their addresses."""

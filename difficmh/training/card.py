"""The model card of a capsule: what a program knows is filled in between markers, what a person knows stays.

<!-- training -->
…replaced whenever the card is written…
<!-- /training -->
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from difficmh.training.history import StageRecord

CARD = "MODEL_CARD.md"

TEMPLATE = """# `{name}`

What it is for, who trained it, and how to reach them.

## Data

Which pictures, from where, under which licences; what they show, and what they do not.

## How it was made

<!-- training -->
<!-- /training -->

## Results

<!-- results -->
<!-- /results -->

## Known failures

Reconstructions are made up where bits are few: nobody should read faces, lettering or number plates from them.
What else goes wrong on your pictures?
"""


def write_card(capsule: Path, name: str, sections: Mapping[str, str]) -> None:
    """Fills the sections of the capsule's card, or of a new one, by the names of their markers.

    A card without the markers of a section stays without it, which is printed. The manifest has to be written after it.
    """
    file = capsule / CARD
    text = file.read_text(encoding="utf-8") if file.is_file() else TEMPLATE.format(name=name)
    if lacking := [section for section in sections if not _marks(section).search(text)]:
        print(f"{file} has no markers of {', '.join(lacking)}: it stays as it is there", file=sys.stderr)
    for section, content in sections.items():
        text = filled(text, section, content)
    file.write_text(text, encoding="utf-8")


def filled(text: str, section: str, content: str) -> str:
    """`text` with `content` between the markers of a section, where it has them."""
    return _marks(section).sub(lambda found: f"{found[1]}{content.strip()}\n{found[2]}", text)


def _marks(section: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {section} -->\n).*?(<!-- /{section} -->)", re.DOTALL)


def training_table(records: Sequence[StageRecord]) -> str:
    """The stages as a Markdown table, first one first."""
    if not records:
        return "The training was not recorded."
    lines = [
        "| stage | from | steps | crops per step | pictures | minutes | on | peak rate | changed losses |",
        "|---" * 9 + "|",
    ]
    for one in records:
        changed = ", ".join(f"`{name}={value:g}`" for name, value in one.changed.items()) or "none"
        lines.append(
            f"| `{one.stage}` | {one.start or 'the one before'} | {one.steps:,} "
            f"| {one.batch} of {one.crop} × {one.crop} | {one.images:,} | {one.minutes:.0f} | {one.device} "
            f"| {one.rate:g} | {changed} |"
        )
    return "\n".join(lines)

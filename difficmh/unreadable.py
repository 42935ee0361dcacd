"""Pictures among others that cannot be read: a few of them end no work on the rest, but are counted and named."""

from __future__ import annotations

from collections.abc import Sequence

MOST_NAMED = 10

Unreadable = Sequence[tuple[str, str]]
"""Names, each with what is wrong."""


def left_out(unreadable: Unreadable) -> str:
    """`2 pictures left out that cannot be read: a.jpg (not an image of a known format); b.jpg (…)`."""
    count = "1 picture" if len(unreadable) == 1 else f"{len(unreadable)} pictures"
    named = [f"{name} ({reason})" for name, reason in unreadable[:MOST_NAMED]]
    rest = [f"{len(unreadable) - MOST_NAMED} more"] if len(unreadable) > MOST_NAMED else []
    return f"{count} left out that cannot be read: {'; '.join([*named, *rest])}"

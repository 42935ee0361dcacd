"""Pictures among others that cannot be read: a few of them end no work on the rest, but are counted and named."""

from __future__ import annotations

from collections.abc import Sequence

MOST_NAMED = 10

Unreadable = Sequence[tuple[str, str]]
"""Names, each with what is wrong."""


def counted(number: int, thing: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def left_out(unreadable: Unreadable) -> str:
    """`2 pictures left out that cannot be read: a.jpg (not an image of a known format); b.jpg (…)`."""
    named = [f"{name} ({reason})" for name, reason in unreadable[:MOST_NAMED]]
    rest = [f"{len(unreadable) - MOST_NAMED} more"] if len(unreadable) > MOST_NAMED else []
    return f"{counted(len(unreadable), 'picture')} left out that cannot be read: {'; '.join([*named, *rest])}"

"""Things that are made when they are first needed, such as networks that not every reader of an archive needs."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

Made = TypeVar("Made")


def lazily(make: Callable[[], Made]) -> Callable[[], Made]:
    """A function that returns what `make` returned at the first call, whichever thread that came from.

    Where `make` raises, so does this, and the next call tries again.
    """
    lock = Lock()
    made: list[Made] = []

    def get() -> Made:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get

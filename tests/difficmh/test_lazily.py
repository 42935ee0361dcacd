"""What is made at its first use: once, by one thread, and again after a failure."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from difficmh.lazily import lazily


def test_threads_share_what_one_of_them_makes() -> None:
    made: list[object] = []
    together = Barrier(4)

    def make() -> object:
        made.append(object())
        return made[-1]

    get = lazily(make)
    assert not made

    def get_together(_: int) -> object:
        together.wait()
        return get()

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(get_together, range(4)))
    assert len(made) == 1
    assert all(one is made[0] for one in found)


def test_a_failure_is_not_kept() -> None:
    answers = iter([ValueError("not yet"), None])

    def make() -> str:
        if error := next(answers):
            raise error
        return "made"

    get = lazily(make)
    with pytest.raises(ValueError, match="not yet"):
        get()
    assert get() == "made"

"""Work done on threads a little ahead of its use, in order, with a bound on how much waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item], count: int) -> Iterator[Result]:
    """`map(function, items)` on `count` threads; at most `count` results are under way or waiting.

    An error is raised where its result would have come; what was submitted after it is dropped.
    """
    threads = ThreadPoolExecutor(count)
    window: deque[Future[Result]] = deque()
    try:
        for item in items:
            window.append(threads.submit(function, item))
            if len(window) >= count:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)

"""Bounded reading ahead: one thread reads samples, a few decode them, results come in the order of the shard.

    read_shard ──reader thread──► budget ──decode threads──► results, in order

What is read but not yet taken is bounded by bytes, not by count, as one camera image may be as large as a thousand
thumbnails. `requests` asks a store for many objects in the same way, within a number of answers.
"""

from __future__ import annotations

import io
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from threading import Condition, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

DECODE_BYTES_PER_PIXEL = 8
"""Pillow's own four bytes, an RGB copy of three, and slack for turning it upright."""
UNKNOWN_EXPANSION = 12
"""Decoded size over file size where the header cannot be read."""

PARALLEL_REQUESTS = 16
REQUESTS_AHEAD = 1024
"""Requests under way, and answers that wait for a slower one before them. With no more than those, the slowest of them
would set the pace for all."""


class Closed(Exception):
    """The consumer has gone; nobody will take what is read."""


class ByteBudget:
    """Bytes that may be in flight. A single item above the limit is let through alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._open = True
        self._changed = Condition()

    def acquire(self, amount: int) -> None:
        """Blocks until `amount` fits; raises Closed once the budget is closed."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._open or self._used == 0 or self._used + amount <= self._limit,
            )
            if not self._open:
                raise Closed
            self._used += amount

    def release(self, amount: int) -> None:
        with self._changed:
            self._used -= amount
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._changed.notify_all()


@dataclass(frozen=True)
class _Ahead(Generic[Result]):
    future: Future[Result]
    cost: int


def map_ahead(
    items: Iterable[Item], work: Callable[[Item], Result], cost: Callable[[Item], int], threads: int, limit: int
) -> Iterator[Result]:
    """`work(item)` for each item, in order, computed ahead on `threads` threads while `cost` sums to at most `limit`.

    An error of `items` or `work` is raised where its result would have come. Closing the iterator ends the threads.
    """
    budget = ByteBudget(limit)
    results: queue.SimpleQueue[_Ahead[Result] | BaseException | None] = queue.SimpleQueue()
    with ThreadPoolExecutor(threads, "decode") as pool:

        def read() -> None:
            try:
                for item in items:
                    amount = cost(item)
                    budget.acquire(amount)
                    results.put(_Ahead(pool.submit(work, item), amount))
                results.put(None)
            except Closed:
                pass
            except BaseException as error:
                results.put(error)

        reader = Thread(target=read, name="read", daemon=True)
        reader.start()
        try:
            yield from _taken(results, budget)
        finally:
            budget.close()
            reader.join()
            pool.shutdown(cancel_futures=True)


def requests(request: Callable[[Item], Result], items: Iterable[Item], ahead: int = REQUESTS_AHEAD) -> Iterator[Result]:
    """`map` over objects of a store, PARALLEL_REQUESTS at a time; at most `ahead` are asked or wait to be taken."""
    items = iter(items)
    first = list(islice(items, 2))
    if len(first) < 2:  # threads would cost more than they save
        return map(request, first)
    items = chain(first, items)
    return map_ahead(items, request, lambda item: 1, PARALLEL_REQUESTS, ahead)


def _taken(results: queue.SimpleQueue[_Ahead[Result] | BaseException | None], budget: ByteBudget) -> Iterator[Result]:
    while (ahead := results.get()) is not None:
        if isinstance(ahead, BaseException):
            raise ahead
        result = ahead.future.result()
        budget.release(ahead.cost)
        yield result


def decoding_cost(image: bytes) -> int:
    """About how many bytes decoding this image file takes, by its header; never raises."""
    from PIL import Image

    with suppress(Exception), Image.open(io.BytesIO(image)) as header:
        return len(image) + header.width * header.height * DECODE_BYTES_PER_PIXEL
    return len(image) * UNKNOWN_EXPANSION

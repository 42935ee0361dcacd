"""The images of one batch side by side on a processor's cores.

A network spreads one image over several cores by stopping at a barrier after every layer, which costs much where layers
are small or another process needs a core for a moment, and what lies between the layers (entropy coding, Python) leaves
the other cores idle. One image per core has no barriers. A batch of a single image still gets all cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from pipeline.attempts import WorkerContext

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """As many threads as the worker has cores; none on a GPU, which takes a batch as a whole. Used with `with`."""

    def __init__(self, context: WorkerContext) -> None:
        several = context.device == "cpu" and context.threads > 1
        self._threads = ThreadPoolExecutor(context.threads, "lane", limit_threads, (1,)) if several else None

    def map(self, work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
        """The results of `work` for all items, in order; `work` gets some of the items and answers one result each.

        Raises what `work` raises for the first item that fails.
        """
        if self._threads is None or len(items) < 2:
            return work(items)
        parts = self._threads.map(work, [[item] for item in items])
        return [result for part in parts for result in part]

    def __enter__(self) -> Lanes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)


def limit_threads(threads: int) -> None:
    """Tells torch how many cores the calling thread may use, if the worker loaded torch at all."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)

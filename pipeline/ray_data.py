"""A function over rows and variants by Ray Data: for evaluations, whose rows may be repeated and whose errors end all.

Shards of an archive go another way (docs/decisions/plain-ray-actors.md).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Worker:
    """An actor of Ray Data: rows hold pickles, as Arrow knows no objects of ours."""

    def __init__(self, make: bytes) -> None:
        self._work: Callable[[Any, int], Any] = pickle.loads(make)()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": pickle.dumps(self._work(pickle.loads(row["item"]), row["variant"]))}


def mapped(
    items: Iterable[Item], variants: int, make: Callable[[], Callable[[Item, int], Result]], workers: int, gpus: int = 0
) -> Iterator[Result]:
    """`make()(item, variant)` for every item and every variant from 0 on, in any order, on a Ray that is connected.

    `make` is called once in each of the `workers` actors; it, items and results are pickled. One row is one item with
    one variant, and all items are held at once. Each actor has `gpus` to itself, where that is not 0. Raises what Ray
    raises where a worker does.
    """
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    # A block for each item, made here: an operator that cuts blocks would wait for a core while actors hold them all.
    rows = [{"item": pickle.dumps(item)} for item in items]
    tasks = ray.data.from_items(rows, override_num_blocks=max(1, len(rows))).flat_map(
        lambda row: [{**row, "variant": variant} for variant in range(variants)]
    )
    worker: Any = _Worker  # a class stands for actors of it
    arguments = (pickle.dumps(make),)
    actors = ray.data.ActorPoolStrategy(size=workers)
    done = tasks.map(worker, fn_constructor_args=arguments, compute=actors, num_cpus=1, num_gpus=gpus)
    for row in done.iter_rows():
        yield pickle.loads(row["result"])

import itertools
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prefetch import PARALLEL_REQUESTS, UNKNOWN_EXPANSION, ByteBudget, decoding_cost, map_ahead, requests
from tests import corpora


class InFlight:
    """Weighs what has been read and not been taken yet."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.items = 0
        self._lock = threading.Lock()

    def read(self, amount: int) -> int:
        with self._lock:
            self.now += amount
            self.items += 1
            self.most = max(self.most, self.now)
        return amount

    def taken(self, amount: int) -> None:
        with self._lock:
            self.now -= amount


@given(st.lists(st.integers(0, 1000)), st.integers(1, 3), st.integers(1, 2000))
def test_results_come_in_order(items: list[int], threads: int, limit: int) -> None:
    assert list(map_ahead(items, str, lambda item: item, threads, limit)) == [str(item) for item in items]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60))
def test_bytes_in_flight_are_bounded(costs: list[int]) -> None:
    flight = InFlight()
    for cost in map_ahead(costs, flight.read, lambda cost: cost, threads=2, limit=120):
        flight.taken(cost)
    # What the consumer has in hand is released just before it can be weighed here.
    assert flight.most <= 120 + max(costs)


def test_reading_goes_on_while_the_consumer_works() -> None:
    flight = InFlight()
    results = map_ahead([1] * 100, flight.read, lambda cost: cost, threads=1, limit=10)
    next(results)
    for _ in range(200):
        if flight.items >= 10:
            break
        threading.Event().wait(0.01)
    assert flight.items >= 10
    results.close()


def test_one_item_above_the_limit_goes_alone() -> None:
    assert list(map_ahead([5, 500, 5], int, lambda cost: cost, threads=2, limit=10)) == [5, 500, 5]


def test_an_error_of_the_work_comes_in_its_place() -> None:
    def work(item: int) -> int:
        return 10 // item

    results = map_ahead([5, 2, 0, 1], work, lambda item: 1, threads=2, limit=10)
    assert [next(results), next(results)] == [2, 5]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_error_of_the_source_comes_after_what_was_read() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise TimeoutError("the store is slow")

    results = map_ahead(items(), str, lambda item: 1, threads=2, limit=10)
    assert next(results) == "1"
    with pytest.raises(TimeoutError):
        next(results)


def test_leaving_early_ends_the_threads() -> None:
    before = threading.active_count()
    results = map_ahead(iter(range(10**9)), str, lambda item: 1, threads=2, limit=10)
    assert next(results) == "0"
    results.close()
    assert threading.active_count() == before


def test_leaving_early_waits_for_what_is_being_read() -> None:
    """The file that `items` come from may be closed as soon as one has left."""
    reading, leave, finished = threading.Event(), threading.Event(), []

    def items() -> Iterator[int]:
        yield 0
        reading.set()
        leave.wait(10)
        finished.append(True)
        yield 1

    results = map_ahead(items(), str, lambda item: 1, threads=1, limit=100)
    assert next(results) == "0"
    assert reading.wait(10)
    threading.Timer(0.1, leave.set).start()
    results.close()
    assert finished == [True]


def test_leaving_early_begins_no_more_work() -> None:
    begun, leave, worked = threading.Event(), threading.Event(), []

    def work(item: int) -> None:
        if item:
            begun.set()
            leave.wait(10)
        worked.append(item)

    results = map_ahead(range(10), work, lambda item: 1, threads=1, limit=100)
    next(results)
    assert begun.wait(10)
    threading.Timer(0.2, leave.set).start()
    results.close()
    assert worked == [0, 1]


def test_a_budget_is_used_to_its_last_byte() -> None:
    budget, acquired = ByteBudget(10), []

    def acquire() -> None:
        for amount in (4, 6, 1):
            budget.acquire(amount)
            acquired.append(amount)

    thread = threading.Thread(target=acquire, daemon=True)
    thread.start()
    thread.join(0.2)
    assert acquired == [4, 6]
    budget.release(4)
    thread.join(10)
    assert acquired == [4, 6, 1]


def test_a_header_that_pillow_refuses_costs_what_an_unknown_one_does() -> None:
    huge = b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0\0;"  # a "decompression bomb"
    assert decoding_cost(huge) == len(huge) * UNKNOWN_EXPANSION


def test_decoding_costs_are_estimated_from_the_header() -> None:
    image = corpora.jpeg(0, height=300, width=400)
    assert decoding_cost(image) == len(image) + 300 * 400 * 8
    flat = corpora.image_bytes(corpora.picture(0, 1000, 1000) * 0, "PNG")
    assert decoding_cost(flat) > 100 * len(flat)
    assert decoding_cost(b"no image") == 8 * UNKNOWN_EXPANSION


def test_one_slow_request_holds_up_no_others() -> None:
    last_one = threading.Event()

    def ask(number: int) -> int:
        if number == 0:
            assert last_one.wait(10), "all others are asked meanwhile"
        if number == 4 * PARALLEL_REQUESTS:
            last_one.set()
        return number

    numbers = range(4 * PARALLEL_REQUESTS + 1)
    assert list(requests(ask, numbers)) == list(numbers)


def test_answers_that_nobody_takes_are_bounded() -> None:
    asked = []
    answers = requests(lambda number: asked.append(number) or number, itertools.count(), ahead=20)
    assert [next(answers) for _ in range(5)] == list(range(5))
    threading.Event().wait(0.1)
    assert len(asked) <= 20 + 5
    answers.close()


def test_a_single_request_needs_no_thread() -> None:
    (thread,) = requests(lambda _: threading.current_thread(), ["one"])
    assert thread is threading.current_thread()

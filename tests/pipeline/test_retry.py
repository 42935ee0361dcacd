"""The retry layer: what is repeated, how often, and when it gives up."""

import pytest

from pipeline.errors import TransientError
from pipeline.retry import Retry

AT_ONCE = Retry(attempts=4, budget=10, first=0)


class Flaky:
    """Fails with each error in turn, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_transient_errors_are_repeated() -> None:
    request = Flaky(TimeoutError(), TransientError("short"))
    assert AT_ONCE(request) == "answer"
    assert request.calls == 3


def test_a_library_s_own_transient_errors_are_repeated() -> None:
    """They are no OSErrors; botocore's are known by their names."""
    slow = type("ReadTimeoutError", (Exception,), {})
    request = Flaky(slow("read"), slow("read"))
    assert AT_ONCE(request) == "answer"
    assert request.calls == 3


@pytest.mark.parametrize("error", [ValueError("bad"), PermissionError("no"), FileNotFoundError("gone")])
def test_other_errors_come_at_once(error: Exception) -> None:
    request = Flaky(error)
    with pytest.raises(type(error)):
        AT_ONCE(request)
    assert request.calls == 1


def test_the_last_error_comes_when_attempts_are_spent() -> None:
    request = Flaky(*(TimeoutError(str(number)) for number in range(9)))
    with pytest.raises(TimeoutError, match="3"):
        AT_ONCE(request)
    assert request.calls == 4


def test_no_pause_goes_beyond_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.retry.random.uniform", lambda low, high: high)
    slept: list[float] = []
    monkeypatch.setattr("pipeline.retry.time.sleep", slept.append)
    request = Flaky(*(TimeoutError() for _ in range(9)))
    with pytest.raises(TimeoutError):
        Retry(attempts=9, budget=5, first=1, ceiling=100)(request)
    assert slept == [1, 2, 4]


def test_pauses_are_jittered_below_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return 0.0

    monkeypatch.setattr("pipeline.retry.random.uniform", uniform)
    Retry(attempts=5, budget=100, first=1, ceiling=3)(Flaky(*(TimeoutError() for _ in range(4))))
    assert bounds == [(0, 1), (0, 2), (0, 3), (0, 3)]

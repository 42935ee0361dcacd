from hypothesis import given
from hypothesis import strategies as st

from pipeline.keys import Distinct


def renamed(keys: list[str]) -> list[str]:
    return list(map(Distinct(), keys))


def test_repeated_keys_are_numbered() -> None:
    assert renamed(["a", "b", "a", "a", "b"]) == ["a", "b", "a~2", "a~3", "b~2"]


def test_a_number_that_is_taken_is_passed_over() -> None:
    assert renamed(["a~2", "a", "a", "a~2", "a"]) == ["a~2", "a", "a~3", "a~2~2", "a~4"]


@given(st.lists(st.sampled_from(["a", "a~2", "a~2~2", "a~3", "b"]), max_size=30))
def test_keys_are_distinct_and_first_ones_keep_theirs(keys: list[str]) -> None:
    result = renamed(keys)
    assert len(set(result)) == len(keys)
    assert result == renamed(keys)
    assert result[:1] == keys[:1]
    assert all(new.startswith(old) for old, new in zip(keys, result, strict=True))

import pytest

from pipeline.records import ShardReport, ShardSource
from pipeline.totals import RejectLimit, Totals

SOURCE = ShardSource("/in/0.tar", 1, "")


def test_reports_add_up() -> None:
    good = ShardReport("s", SOURCE, "f", images=3, rejects=1, pixels=800, bytes_in=10, bytes_out=5, seconds={"a": 1.0})
    other = ShardReport("s", SOURCE, "f", images=2, skipped=4, pixels=200, bytes_out=20, seconds={"b": 2.0, "a": 0.5})
    failed = ShardReport("s", SOURCE, "f", rejects=1, error="died")
    total = sum((Totals.of(report) for report in (good, other, failed)), Totals())
    assert (total.shards, total.failed_shards, total.images, total.rejects, total.skipped) == (3, 1, 5, 2, 4)
    assert (total.pixels, total.bytes_in, total.bytes_out) == (1000, 10, 25)
    assert total.seconds == {"a": 1.5, "b": 2.0}
    assert total.bits_per_pixel == pytest.approx(0.2)
    assert Totals().bits_per_pixel == 0


@pytest.mark.parametrize(
    ("text", "images", "rejects", "exceeded"),
    [
        ("0", 100, 0, False),
        ("0", 100, 1, True),
        ("5", 100, 5, False),
        ("5", 100, 6, True),
        ("0.1", 90, 10, False),
        ("0.1", 89, 11, True),
        ("1%", 99, 1, False),
        ("1%", 98, 2, True),
        ("0.0", 0, 0, False),
        ("1.0", 0, 5, False),
    ],
)
def test_limits(text: str, images: int, rejects: int, exceeded: bool) -> None:
    assert RejectLimit.parse(text).exceeded(Totals(images=images, rejects=rejects)) is exceeded


@pytest.mark.parametrize("text", ["0", "1000000", "0.5%", "1%", "100%"])
def test_a_limit_is_told_as_it_was_given(text: str) -> None:
    assert str(RejectLimit.parse(text)).replace("1e+06", "1000000") == text


def test_a_shard_rejected_as_a_whole_is_always_too_much() -> None:
    assert RejectLimit.parse("100%").exceeded(Totals(images=100, rejects=1, failed_shards=1))


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "150%", "nan"])
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - argparse shows its own message
        RejectLimit.parse(text)


def test_reasons_add_up_and_stay_few() -> None:
    parts = [Totals(reasons={"often": 2, f"once {number}": 1}) for number in range(300)]
    total = sum(parts, Totals())
    assert total.reasons["often"] == 600
    assert len(total.reasons) <= 100

import io
import re
from dataclasses import replace

import pytest

from pipeline.attempts import Tally
from pipeline.driver import Summary
from pipeline.manifest import Plan
from pipeline.progress import Rates, duration, exit_status, open_progress, plan_line, size, summary_lines
from pipeline.records import ShardSource
from pipeline.totals import RejectLimit, Totals

BEFORE = Totals(shards=10, images=1000, pixels=10**9, bytes_in=10**9, bytes_out=10**7)
OURS = Totals(shards=5, images=500, rejects=2, pixels=5 * 10**8, bytes_in=5 * 10**8, bytes_out=5 * 10**6)
SUMMARY = Summary(BEFORE + OURS, OURS)
PLAN = Plan("f", [ShardSource(str(shard), 1, "") for shard in range(20)], BEFORE)
PICTURES = replace(PLAN, kind="pictures")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rates_are_of_this_run_and_counts_of_all() -> None:
    rates = Rates.at(SUMMARY, PLAN, under_way=Tally(100, 1), elapsed=50.0)
    assert (rates.shards_done, rates.images, rates.rejects) == (15, 1600, 3)
    assert rates.images_per_second == pytest.approx(12)
    assert rates.megabytes_per_second == pytest.approx(10)
    assert rates.bits_per_pixel == pytest.approx(0.08)
    # 15 shards of 1502 / 15 samples are left, 101 of those samples are done already; 603 took 50 seconds.
    assert rates.remaining == pytest.approx((1502 - 101) * 50 / 603)
    assert (
        str(rates)
        == "15/30 shards, 1600 images, 12.0 images/s, 10.0 MB/s, 0.080 bits per pixel, 3 rejects, 1 min 56 s left"
    )


def test_a_resumed_run_knows_from_earlier_shards_how_long_it_takes() -> None:
    rates = Rates.at(Summary(BEFORE, Totals()), PLAN, under_way=Tally(100), elapsed=10.0)
    assert rates.remaining == pytest.approx(190)  # 20 shards of 100 images, 100 images in 10 seconds


def test_shards_in_work_that_are_larger_than_usual_leave_nothing() -> None:
    last = Summary(BEFORE + Totals(shards=19, images=1900), Totals(shards=19, images=1900))
    assert Rates.at(last, PLAN, under_way=Tally(500), elapsed=10.0).remaining == 0


def test_shards_without_images_are_counted_instead() -> None:
    ours = Totals(shards=5)
    assert Rates.at(Summary(ours, ours), replace(PLAN, done=Totals()), Tally(), 50.0).remaining == pytest.approx(150)


def test_before_the_first_shard_nothing_is_promised() -> None:
    rates = Rates.at(Summary(BEFORE, Totals()), PLAN, under_way=Tally(), elapsed=0.0)
    assert rates.remaining is None
    assert "? left" in str(rates)


def test_plain_lines_outside_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 1.0, 11.0, 12.0, 25.0, 26.0))
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    with open_progress(PLAN, stream) as progress:
        for _ in range(4):
            progress.update(SUMMARY, Tally())
        progress.update(Summary(BEFORE + OURS + Totals(shards=15), OURS), Tally())
    lines = stream.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["15/30 shards", "15/30 shards", "30/30 shards"]


def test_a_bar_in_a_terminal() -> None:
    stream = Terminal()
    with open_progress(PLAN, stream) as progress:
        progress.update(Summary(BEFORE, Totals()), Tally())
        progress.update(SUMMARY, Tally())
    assert "15/30 shards" in stream.getvalue()


def test_a_narrow_terminal_shows_the_bar_and_the_time_left_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    large = Totals(shards=123_456, images=123_456_789, rejects=12_345, pixels=10**15, bytes_out=10**13)
    plan = replace(PLAN, done=large)
    for width in (80, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        stream = Terminal()
        with open_progress(plan, stream) as progress:
            progress.update(Summary(large + OURS, OURS), Tally())
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
        lines = [line for line in re.split(r"[\r\n]", shown) if "shards" in line]
        assert lines
        assert all(re.match(r"\S{12} .* left, 123461/123476 shards, ", line) for line in lines), lines
        assert max(map(len, lines)) <= width
    assert re.search(r"\d images/s, 12345 rejects, 0\.080 bpp$", Rates.at(Summary(large, OURS), plan, Tally(), 1).short)


def test_the_summary_says_what_is_left() -> None:
    text = "\n".join(summary_lines(PLAN, SUMMARY, 75))
    assert "15 done (5 in this run, 1 min 15 s)" in text
    assert "1500 (2 rejected, 0 skipped)" in text
    assert "1.5 GB -> 15.0 MB (100.0 : 1, 0.080 bits per pixel)" in text
    assert "unfinished" not in text
    left = Summary(OURS + Totals(failed_shards=1), OURS, unfinished=2, last_error="slow")
    text = "\n".join(summary_lines(PLAN, left, 1))
    assert "2 shards; run again to resume (slow)" in text
    assert "1 shards rejected as a whole" in text
    assert "delete their reports" in text
    assert text.isascii(), "standard output may be Latin-1 or less"


def test_a_job_that_reads_bitstreams_boasts_of_no_ratio() -> None:
    ours = Totals(shards=20, images=4, pixels=10**6, bytes_in=40_000, bytes_out=4_200_000)
    text = "\n".join(summary_lines(PICTURES, Summary(ours, ours), 5))
    assert "size        40.0 kB of bitstreams read, 4.2 MB written" in text
    assert "pixel" not in text
    assert str(Rates.at(Summary(ours, ours), PICTURES, Tally(), 1.0)).split(", ")[3:5] == ["0.0 MB/s", "0 rejects"]


def test_rejects_can_be_looked_up() -> None:
    assert "reason for each in rejects/" in "\n".join(summary_lines(PLAN, SUMMARY, 1))
    assert "rejects/" not in "\n".join(summary_lines(PLAN, Summary(BEFORE, Totals()), 1))


def test_the_commonest_reasons_for_rejects_of_this_run_are_said() -> None:
    reasons = {"analyze KeyError: 'missing'": 7, "decode ImageError: zerst\u00f6rt": 3, "a": 2, "b": 1}
    ours = replace(OURS, rejects=13, reasons=reasons)
    lines = summary_lines(PLAN, Summary(BEFORE + ours, ours), 1)
    (first,) = (number for number, line in enumerate(lines) if line.startswith("rejects"))
    assert lines[first + 1 : first + 5] == [
        "            analyze KeyError: 'missing' (7)",
        "            decode ImageError: zerst\\xf6rt (3)",
        "            a (2)",
        "            other reasons (1)",
    ]
    long = replace(OURS, reasons={"x" * 600: 2})
    assert max(map(len, summary_lines(PLAN, Summary(long, long), 1))) <= 180


def test_a_query_without_a_hit_is_no_success_in_silence() -> None:
    none, some = Totals(shards=20, skipped=12), Totals(shards=20, skipped=11, rejects=1)
    assert "no image matches --where" in "\n".join(summary_lines(PICTURES, Summary(none, none), 1))
    for plan, totals in ((PICTURES, some), (PLAN, none), (PICTURES, Totals(shards=20))):
        assert "--where" not in "\n".join(summary_lines(plan, Summary(totals, totals), 1))


def test_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    limit = RejectLimit.parse("2")
    assert exit_status(SUMMARY, limit) == 0
    assert exit_status(Summary(OURS, OURS, unfinished=1), limit) == 1
    assert capsys.readouterr().err == "", "the summary says it"


@pytest.mark.parametrize("limit", ["1", "0.1%"])
def test_too_many_rejects_are_the_reason_given(capsys: pytest.CaptureFixture[str], limit: str) -> None:
    assert exit_status(SUMMARY, RejectLimit.parse(limit)) == 1
    samples = SUMMARY.totals.images + SUMMARY.totals.rejects
    assert capsys.readouterr().err == f"error: 2 of {samples} rejected, more than --max-rejects {limit}\n"


def test_a_plan_in_one_line() -> None:
    pending = [ShardSource("a", 1_500_000, ""), ShardSource("b", 500_000, "")]
    assert plan_line(Plan("f", pending, BEFORE), "s3://x") == "s3://x: 10 shards done, 2 to do (2.0 MB)"
    assert "1 of them again" in plan_line(Plan("f", pending, BEFORE, pending[:1]), "s3://x")
    assert plan_line(Plan("f", [], BEFORE, others=4), "s3://x").endswith("; 4 more there that are not among the inputs")


def test_units() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 61, 3700)] == ["0 s", "59 s", "1 min 1 s", "1 h 1 min"]
    assert [size(count) for count in (0, 999, 1000, 2_500_000, 10**16)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "2.5 MB",
        "10.0 PB",
    ]

"""Errors as one line and a status, and what jobs parse."""

import json
from argparse import ArgumentTypeError

import pytest

from pipeline.job import exit_code, reaching, storage_options, worker_count
from pipeline.rejects import JobError
from pipeline.storage import Storage
from tests.s3_server import Bucket


def raising(error: BaseException) -> int:
    raise error


def test_a_status_is_passed_on() -> None:
    assert exit_code(lambda: 1) == 1


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (JobError("no such codec"), 2, "error: no such codec"),
        (PermissionError("access denied"), 2, "error: PermissionError: access denied"),
        (TimeoutError("slow"), 2, "error: TimeoutError: slow"),
        (KeyboardInterrupt(), 130, "interrupted; run again to resume"),
    ],
)
def test_a_users_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, status: int, line: str
) -> None:
    assert exit_code(lambda: raising(error)) == status
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_defect_shows_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: raising(AttributeError("oops"))) == 2
    assert "Traceback" in capsys.readouterr().err


def test_what_a_store_says_is_put_in_a_users_words() -> None:
    with pytest.raises(JobError, match="nosuch://x"), reaching("nosuch://x"):
        Storage.from_url("nosuch://x").list()
    with pytest.raises(JobError, match="as it was"), reaching("s3://x"):
        raise JobError("as it was")
    with pytest.raises(ZeroDivisionError), reaching("s3://x"):
        raise ZeroDivisionError


@pytest.mark.s3
def test_a_store_that_refuses(s3: Bucket) -> None:
    with pytest.raises(JobError, match="no bucket 'there-is-no-such'"), reaching("s3://there-is-no-such/a"):
        Storage.from_url("s3://there-is-no-such/a", s3.storage_options).read("b")


def test_storage_options_are_a_json_object() -> None:
    assert storage_options(json.dumps({"key": "a"})) == {"key": "a"}
    for text in ("[]", "x", ""):
        with pytest.raises((ValueError, ArgumentTypeError)):
            storage_options(text)


def test_worker_counts() -> None:
    assert worker_count("auto") == "auto"
    assert worker_count("8") == 8
    for text in ("0", "-1", "many"):
        with pytest.raises(ValueError):  # noqa: PT011 - argparse shows its own message
            worker_count(text)

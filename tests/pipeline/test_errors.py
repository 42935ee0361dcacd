"""The error table, on errors as the libraries raise them."""

import errno

import botocore.exceptions
import botocore.parsers
import pytest

from difficmh.errors import CapsuleError
from pipeline.errors import JobError, TransientError, Verdict, decide, describe, error_code


def client_error(code: str, status: int = 400) -> botocore.exceptions.ClientError:
    response = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(response, "GetObject")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class HttpError(Exception):
    """As gcsfs raises it."""

    def __init__(self, code: int) -> None:
        super().__init__("failed")
        self.code = code


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (JobError("wrong"), Verdict.ABORT),
        (TransientError("short"), Verdict.RETRY),
        (TimeoutError(), Verdict.RETRY),
        (ConnectionResetError(), Verdict.RETRY),
        (OSError(errno.EBUSY, "SlowDown"), Verdict.RETRY),
        (OSError(errno.EIO, "a disk"), Verdict.RETRY),
        (OSError(errno.ENOTCONN, "a mount"), Verdict.RETRY),
        (OSError(errno.EMFILE, "a limit"), Verdict.RETRY),
        (caused(OSError(errno.EIO, "as s3fs has it"), client_error("AccessDenied", 403)), Verdict.ABORT),
        (caused(OSError(errno.EIO, "as s3fs has it"), client_error("InvalidRequest")), Verdict.REJECT),
        (OSError(errno.ENOSPC, "disk full"), Verdict.ABORT),
        (PermissionError("no"), Verdict.ABORT),
        (client_error("SlowDown", 503), Verdict.RETRY),
        (client_error("InternalError", 500), Verdict.RETRY),
        (client_error("Unheard", 502), Verdict.RETRY),
        (client_error("NoSuchBucket", 404), Verdict.ABORT),
        (client_error("SignatureDoesNotMatch", 403), Verdict.ABORT),
        (client_error("NoSuchKey", 404), Verdict.REJECT),
        (caused(FileNotFoundError("bucket"), client_error("NoSuchBucket", 404)), Verdict.ABORT),
        (caused(OSError(errno.EIO, "x"), client_error("SlowDown", 503)), Verdict.RETRY),
        (botocore.exceptions.NoCredentialsError(), Verdict.ABORT),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), Verdict.RETRY),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"), Verdict.RETRY),
        (botocore.parsers.ResponseParserError("a listing that was cut: invalid XML"), Verdict.RETRY),
        (HttpError(429), Verdict.RETRY),
        (HttpError(401), Verdict.ABORT),
        (HttpError(400), Verdict.REJECT),
        (FileNotFoundError("shard"), Verdict.REJECT),
        (ValueError("not an image"), Verdict.REJECT),
        (MemoryError(), Verdict.REJECT),
        (CapsuleError("a part of the model that does not fit"), Verdict.ABORT),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Verdict.REPLACE),
        (OutOfMemoryError("CUDA error: out of memory"), Verdict.REJECT),
    ],
    ids=repr,
)
def test_verdicts(error: Exception, verdict: Verdict) -> None:
    assert decide(error) is verdict


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert decide(first) is Verdict.REJECT


def test_descriptions_are_one_short_line() -> None:
    assert describe(ValueError("two\nlines")) == "ValueError: two lines"
    assert describe(MemoryError()) == "MemoryError"
    assert describe(ValueError("not in <Bytes object at 0x7fA0>")) == "ValueError: not in <Bytes object>"
    assert len(describe(ValueError("x" * 10_000))) <= 500
    assert describe(JobError("in words\nalready")) == "in words already"
    assert len(describe(JobError("x" * 10_000))) <= 500


def test_the_stores_code_is_found_behind_a_translated_error() -> None:
    assert error_code(caused(FileNotFoundError("x"), client_error("NoSuchBucket"))) == "NoSuchBucket"
    assert error_code(botocore.exceptions.NoCredentialsError()) == "NoCredentialsError"

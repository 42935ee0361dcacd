"""The error table: which error is retried, which rejects its sample or shard, which ends the job.

    RETRY    the store or the network faltered; the same request may succeed later (`storage.py` retries it)
    REJECT   this sample or shard is at fault; it is set aside with its bytes and the job goes on
    REPLACE  the worker itself is broken (a GPU fault): the shard gets another attempt in a fresh one
    ABORT    nothing will get better by going on: credentials, permissions, configuration, a full disk

Errors of storage libraries are told apart by their codes and class names, so that none of them has to be imported.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from enum import Enum

from pipeline.addresses import redacted


class Verdict(Enum):
    RETRY = "retry"
    REJECT = "reject"
    REPLACE = "replace"
    ABORT = "abort"


class JobError(Exception):
    """The job cannot start or go on; the message is one line for the person who started it."""


class TransientError(OSError):
    """A request that may succeed when it is repeated, such as a body that came back shorter than the object."""


ABORT_CODES = frozenset(
    [
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidBucketName",
        "InvalidToken",
        "NoSuchBucket",
        "NotSignedUp",
        "PermanentRedirect",
        "SignatureDoesNotMatch",
        "301",
        "403",
    ]
)
RETRY_CODES = frozenset(
    [
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
        "RequestLimitExceeded",
        "NoSuchUpload",
        "408",
        "429",
    ]
)
ABORT_CLASSES = frozenset(
    [
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "ProfileNotFound",
        "NoRegionError",
        "UnauthorizedSSOTokenError",
        "ParamValidationError",
        "TokenRetrievalError",
        "InvalidEndpointURLError",
        "DefaultCredentialsError",
        "CapsuleError",  # a part of the model that is loaded when it is first needed, and that no image can do without
    ]
)
RETRY_CLASSES = frozenset(
    [
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
        "ConnectionError",
        "HTTPClientError",
        "ResponseStreamingError",
        "ResponseParserError",
        "IncompleteRead",
        "IncompleteReadError",
        "ClientPayloadError",
        "ClientConnectionError",
        "ClientOSError",
        "ServerDisconnectedError",
        "ServerTimeoutError",
        "FSTimeoutError",
        "ServiceResponseError",
        "ServiceRequestError",
        "ProxyConnectionError",
    ]
)
RETRY_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ESTALE,
        errno.ETIMEDOUT,
        getattr(errno, "EREMOTEIO", errno.EAGAIN),
    }
)
MACHINE_ERRNOS = frozenset(
    {
        errno.EHOSTDOWN,
        errno.EIO,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENFILE,
        errno.ENOLCK,
        errno.ENOMEM,
        errno.ENOTCONN,
    }
)
"""Disks, mounts and limits of a machine that falter. Retried only where nothing stands behind them: s3fs calls whatever
a store answers that it does not know an EIO."""

ABORT_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


def decide(error: BaseException) -> Verdict:
    """What to do about `error`; the first known error in its chain of causes decides, an unknown one rejects."""
    for link in _chain(error):
        verdict = _known(link)
        if verdict is not None:
            return verdict
    return Verdict.REJECT


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or a process had too little memory."""
    names = {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
    return not names.isdisjoint({"OutOfMemoryError", "MemoryError"})


def describe(error: BaseException) -> str:
    """One line: the class and the message, at most 500 characters; of a JobError, which is in words, the message.

    Line breaks go, and so do addresses of objects: the same error of another attempt is to read the same. URLs lose
    what only their owner may know, as errors are stored.
    """
    return _told(error, isinstance(error, JobError))


def in_words(error: BaseException) -> str:
    """Like `describe`, for the person who started a job: a ValueError, too, says what is wrong without its class."""
    return _told(error, isinstance(error, JobError | ValueError))


def _told(error: BaseException, speaks_for_itself: bool) -> str:
    message = redacted(" ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", str(error)).split()))
    name = type(error).__name__
    if not message:
        return name
    return (message if speaks_for_itself else f"{name}: {message}")[:500]


def error_code(error: BaseException) -> str:
    """The store's own code for an error (`NoSuchBucket`), or the class name of its first cause."""
    code = type(error).__name__
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        code = type(link).__name__
    return code


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _known(error: BaseException) -> Verdict | None:
    if isinstance(error, JobError):
        return Verdict.ABORT
    if isinstance(error, TransientError):
        return Verdict.RETRY
    if _is_device_fault(error):
        return Verdict.REPLACE
    return _by_code(error) or _by_class(error) or _by_errno(error)


def _is_device_fault(error: BaseException) -> bool:
    """A CUDA error other than too little memory: every later call in the process fails too."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "OutOfMemoryError" in names:
        return False
    return "AcceleratorError" in names or (isinstance(error, RuntimeError) and "CUDA error" in str(error))


def _by_code(error: BaseException) -> Verdict | None:
    """Cloud errors: botocore keeps a code and a status in `response`, others a status in `code` or `status`."""
    response = getattr(error, "response", None)
    code, status = "", getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(response, dict):
        code = str(response.get("Error", {}).get("Code", ""))
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code in ABORT_CODES or status in (401, 403):
        return Verdict.ABORT
    if code in RETRY_CODES or (isinstance(status, int) and (status in (408, 429) or 500 <= status <= 599)):
        return Verdict.RETRY
    return None


def _by_class(error: BaseException) -> Verdict | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, PermissionError) or names & ABORT_CLASSES:
        return Verdict.ABORT
    if isinstance(error, TimeoutError | ConnectionError) or names & RETRY_CLASSES:
        return Verdict.RETRY
    return None


def _by_errno(error: BaseException) -> Verdict | None:
    number = error.errno if isinstance(error, OSError) else None
    if number in ABORT_ERRNOS:
        return Verdict.ABORT
    falters = number in RETRY_ERRNOS or (number in MACHINE_ERRNOS and error.__cause__ is None)
    return Verdict.RETRY if falters else None

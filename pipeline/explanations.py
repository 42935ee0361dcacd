"""What went wrong with a store, in one line that says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.addresses import without_password
from pipeline.errors import JobError, Verdict, decide, describe, error_code, in_words

_WRONG_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turns what goes wrong with the store behind `url` into a JobError that says so in a user's words."""
    try:
        yield
    except JobError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise JobError(explain(error, url)) from error
    except Exception as error:
        if decide(error) is Verdict.REJECT:
            raise
        raise JobError(explain(error, url)) from error


def explain(error: Exception, url: str) -> str:
    """One line about `error`, met at `url`."""
    url, code = without_password(url), error_code(error)
    status = getattr(error, "status", None)  # a web server's
    if code in ("NoSuchBucket", "InvalidBucketName"):
        bucket = url.partition("://")[2].partition("/")[0]
        return f"{url}: there is no bucket {bucket!r}; check its name and the endpoint (AWS_ENDPOINT_URL)"
    if code in _NO_CREDENTIALS:
        return f"{url}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE"
    if code in _WRONG_CREDENTIALS:
        return f"{url}: the store does not accept these credentials ({code}); check key, secret and session token"
    if isinstance(error, PermissionError) or code in ("AccessDenied", "403") or status in (401, 403):
        return f"{url}: access denied: wrong credentials, or ones (or a user) that may not do this there"
    if isinstance(error, FileNotFoundError):
        return f"{url}: no such file or folder"
    if isinstance(error, NotADirectoryError):
        return f"{url}: is a file, not a folder"
    if isinstance(error, ImportError):
        return f"{url}: {describe(error)}; install the package that reads this kind of URL"
    if decide(error) is Verdict.RETRY and "://" in url:
        return f"{url}: cannot be reached, check endpoint and network: {describe(error)}"
    return f"{url}: {in_words(error)}"

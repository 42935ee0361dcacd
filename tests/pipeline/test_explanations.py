"""What goes wrong with a store, in a user's words."""

import errno

import pytest

from pipeline.errors import JobError
from pipeline.explanations import explain, reaching
from pipeline.storage import Storage
from tests.s3_server import Bucket


def test_what_a_store_says_is_put_in_a_users_words() -> None:
    with pytest.raises(JobError, match=r"^nosuch://x: Protocol not known: nosuch"), reaching("nosuch://x"):
        Storage.from_url("nosuch://x").list()
    with pytest.raises(JobError, match="as it was"), reaching("s3://x"):
        raise JobError("as it was")
    with pytest.raises(ZeroDivisionError), reaching("s3://x"):
        raise ZeroDivisionError


def test_only_what_is_behind_a_network_is_told_to_be_unreachable() -> None:
    falters = OSError(errno.EMFILE, "Too many open files")
    assert explain(falters, "s3://b/a").startswith("s3://b/a: cannot be reached, check endpoint and network: ")
    assert explain(falters, "/data/a") == "/data/a: OSError: [Errno 24] Too many open files"


@pytest.mark.s3
def test_a_store_that_refuses(s3: Bucket) -> None:
    with pytest.raises(JobError, match="no bucket 'there-is-no-such'"), reaching("s3://there-is-no-such/a"):
        Storage.from_url("s3://there-is-no-such/a", s3.storage_options).read("b")

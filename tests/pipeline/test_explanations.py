"""What goes wrong with a store, in a user's words."""

import pytest

from pipeline.errors import JobError
from pipeline.explanations import reaching
from pipeline.storage import Storage
from tests.s3_server import Bucket


def test_what_a_store_says_is_put_in_a_users_words() -> None:
    with pytest.raises(JobError, match=r"^nosuch://x: Protocol not known: nosuch"), reaching("nosuch://x"):
        Storage.from_url("nosuch://x").list()
    with pytest.raises(JobError, match="as it was"), reaching("s3://x"):
        raise JobError("as it was")
    with pytest.raises(ZeroDivisionError), reaching("s3://x"):
        raise ZeroDivisionError


@pytest.mark.s3
def test_a_store_that_refuses(s3: Bucket) -> None:
    with pytest.raises(JobError, match="no bucket 'there-is-no-such'"), reaching("s3://there-is-no-such/a"):
        Storage.from_url("s3://there-is-no-such/a", s3.storage_options).read("b")

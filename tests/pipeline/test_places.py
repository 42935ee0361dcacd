"""Where an output may not lie, as its path says."""

from __future__ import annotations

import pytest

from pipeline.errors import JobError
from pipeline.places import check_lasting

FILES = "/tmp/ray/session/runtime_resources/working_dir_files"


@pytest.mark.parametrize("place", [FILES, f"{FILES}/", f"{FILES}/_ray_pkg_0/archive", f"file://{FILES}/_ray_pkg_0"])
def test_ray_s_copy_and_all_within_does_not_last(place: str) -> None:
    with pytest.raises(JobError, match=r"is in Ray's own copy of the working folder"):
        check_lasting(place)


@pytest.mark.parametrize("place", [f"{FILES}_of_mine", "/data/working_dir_files/archive", "s3://bucket/archive"])
def test_other_places_last(place: str) -> None:
    check_lasting(place)

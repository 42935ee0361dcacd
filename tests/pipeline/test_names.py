from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.keys import Distinct
from pipeline.names import MAX_NAME, safe_name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("000123", "000123"),
        ("2026/05/frame.left", "2026/05/frame.left"),
        ("Straße 7", "Straße 7"),
        ("/etc/passwd", "etc/passwd"),
        ("../../etc/passwd", "_/_/etc/passwd"),
        ("a/../b", "a/_/b"),
        ("..", "_"),
        ("a/./b//c", "a/b/c"),
        (".ssh/keys", "_ssh/keys"),
        ("c:\\windows\\x", "c__windows_x"),
        ("line\nbreak\x00", "line_break_"),
        ("a.jpg/b", "a.jpg_/b"),
        ("", "_"),
        ("/", "_"),
    ],
)
def test_examples(key: str, name: str) -> None:
    assert safe_name(key) == name


@given(st.text(st.sampled_from("a.b/\\:~\0\nä "), max_size=30) | st.text(st.characters(codec="utf-8"), max_size=900))
def test_no_key_leaves_its_folder_or_breaks_a_file_system(key: str) -> None:
    name = safe_name(key)
    parts = PurePosixPath(name).parts
    assert parts
    assert "/".join(parts) == name
    assert not any(part.startswith(".") or len(part.encode()) > 200 for part in parts)
    assert not set(name) & set("\\\0\n")
    assert len(name.encode()) <= MAX_NAME


def test_long_keys_stay_apart() -> None:
    names = {safe_name("x" * 300 + end) for end in "ab"}
    assert len(names) == 2


def test_keys_that_share_a_name_are_told_apart() -> None:
    distinct = Distinct()
    names = [distinct(safe_name(key)) for key in ("a", "/a", "a~2", "./a")]
    assert names == ["a", "a~2", "a~2~2", "a~3"]

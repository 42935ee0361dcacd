"""Shards behind links to folders, and links that lead in circles."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.listing import InputError, expand


def names(folder: Path, pattern: str = "") -> list[str]:
    return [source.url.removeprefix(f"{folder}/") for source in expand([f"{folder}{pattern}"])]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder `in` of links: `far` and `.cache/far` lead out of it, `in/early` to `in/late`."""
    for name in ("in/late/a.tar", "disk/b.tar", "disk/deep/c.tar", "disk/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "in" / "far").symlink_to(tmp_path / "disk")
    (tmp_path / "in" / "early").symlink_to("late")
    return tmp_path / "in"


EVERYTHING = ["far/b.tar", "far/deep/c.tar", "late/a.tar"]


def test_links_to_folders_are_followed(tree: Path) -> None:
    assert names(tree) == EVERYTHING
    assert names(tree, "/**") == names(tree, "/**/*.tar") == EVERYTHING
    assert names(tree, "/f*") == names(tree, "/far") == names(tree, "/**/far/**/*.tar") == EVERYTHING[:2]
    assert names(tree, "/*/*.tar") == ["far/b.tar", "late/a.tar"]
    assert names(tree, "/e*/*.tar") == names(tree, "/e*") == ["early/a.tar"]
    assert names(tree, "/{far,late,far/deep,late/../late,late/.}") == EVERYTHING


def test_a_folder_is_searched_once_under_its_own_name(tree: Path) -> None:
    (tree / "again").symlink_to(tree / "far" / "deep")
    found = names(tree)
    assert len(found) == 3
    assert "late/a.tar" in found


def test_links_may_lead_in_circles(tree: Path) -> None:
    (tree / "late" / "up").symlink_to("..")
    (tree.parent / "disk" / "back").symlink_to(tree)
    (tree.parent / "disk" / "deep" / "self").symlink_to(".")
    assert names(tree) == names(tree, "/**/*.tar") == names(tree, "/**/*") == names(tree, "/*") == EVERYTHING


def test_hidden_folders_are_searched_and_hidden_shards_are_not(tree: Path) -> None:
    (tree / ".cache").mkdir()
    (tree / ".cache" / "d.tar").write_bytes(b"x")
    (tree / ".cache" / ".e.tar").write_bytes(b"x")
    assert names(tree) == names(tree, "/**/*.tar") == [".cache/d.tar", *EVERYTHING]
    assert ".cache/d.tar" in names(tree, "/*/*.tar")


def test_names_with_signs_of_patterns_below_a_search(tree: Path) -> None:
    (tree / "[x]").mkdir()
    (tree / "[x]" / "d.tar").write_bytes(b"x")
    assert names(tree, "/**/d.tar") == ["[x]/d.tar"]


def test_two_stars_stand_for_whole_folders(tree: Path) -> None:
    with pytest.raises(InputError, match="whole folders"):
        expand([f"{tree}/**a.tar"])

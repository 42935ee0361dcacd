"""Tars as other programs write them, and every way they can be damaged."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tar import MAX_EXTENSION_HEADER, TarDamage, read_members
from tests.corpora import Member, special_member, tar_bytes

FILES: list[Member] = [("a.jpg", b"x" * 700), ("b.txt", b""), ("dir/c.bin", bytes(range(256)) * 4)]


def contents(data: bytes) -> list[Member]:
    return [(member.name, member.read()) for member in read_members(io.BytesIO(data)) if member.kind == "file"]


def contents_before_damage(data: bytes) -> tuple[list[Member], str]:
    """What can be read, and the message of the damage that follows, empty if there is none."""
    found: list[Member] = []
    try:
        for member in read_members(io.BytesIO(data)):
            if member.kind == "file":
                found.append((member.name, member.read()))
    except TarDamage as damage:
        return found, str(damage)
    return found, ""


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_with_long_and_foreign_names(format: int) -> None:
    files = [*FILES, ("d" * 80 + "/" + "e" * 80 + ".jpg", b"long"), ("möwe.jpg", b"name")]
    if format != tarfile.USTAR_FORMAT:
        files.append(("f" * 300 + "/" + "g" * 300 + ".jpg", b"longer"))
    assert contents(tar_bytes(files, format=format)) == files


def test_what_the_system_tar_writes(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.jpg").write_bytes(b"picture")
    (tmp_path / "x" / "b.jpg").symlink_to("a.jpg")
    subprocess.run(["tar", "czf", "x.tgz", "./x"], cwd=tmp_path, check=True)
    members = list(read_members(io.BytesIO((tmp_path / "x.tgz").read_bytes())))
    assert {(member.name, member.kind) for member in members} == {
        ("./x", "folder"),
        ("./x/a.jpg", "file"),
        ("./x/b.jpg", "link"),
    }


def test_sparse_files_are_passed_over_whole(tmp_path: Path) -> None:
    with open(tmp_path / "sparse.jpg", "wb") as file:
        for hole in range(40):  # more than one header holds
            file.seek(hole * 100_000)
            file.write(b"data" * 2000)
    (tmp_path / "z.jpg").write_bytes(b"after")
    for format in ("gnu", "posix"):
        command = ["tar", "-c", "-S", f"--format={format}", "-f", "s.tar", "sparse.jpg", "z.jpg"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert contents((tmp_path / "s.tar").read_bytes()) == [("z.jpg", b"after")]


def test_links_folders_and_devices_have_no_content() -> None:
    special = [
        special_member("folder", tarfile.DIRTYPE),
        special_member("hard.jpg", tarfile.LNKTYPE, "a.jpg"),
        special_member("soft.jpg", tarfile.SYMTYPE, "a.jpg"),
        special_member("pipe", tarfile.FIFOTYPE),
    ]
    members = list(read_members(io.BytesIO(tar_bytes([*special, *FILES]))))
    assert [member.kind for member in members] == ["folder", "link", "link", "device", "file", "file", "file"]


def test_unread_content_is_passed_over() -> None:
    names = [member.name for member in read_members(io.BytesIO(tar_bytes(FILES)))]
    assert names == [name for name, _ in FILES]
    heads = [member.read(3) for member in read_members(io.BytesIO(tar_bytes(FILES)))]
    assert heads == [b"xxx", b"", b"\0\1\2"]


def test_joined_tars_and_joined_gzips() -> None:
    one, two = tar_bytes(FILES), tar_bytes([("z.jpg", b"z")])
    assert contents(one + two) == [*FILES, ("z.jpg", b"z")]
    assert contents(gzip.compress(one) + gzip.compress(two)) == [*FILES, ("z.jpg", b"z")]
    assert contents(gzip.compress(one[:1000]) + gzip.compress(one[1000:])) == FILES


def test_name_that_is_not_utf8_stays_printable() -> None:
    data = tar_bytes([("caf\udce9.jpg", b"x")], format=tarfile.GNU_FORMAT)
    assert contents(data) == [("caf\\xe9.jpg", b"x")]


def test_bytes_come_in_small_pieces() -> None:
    class Dribble(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 7))

    members = read_members(Dribble(tar_bytes(FILES)))
    assert [(member.name, member.read()) for member in members] == FILES


def test_errors_of_the_source_are_passed_on() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1000:
                raise ConnectionResetError("peer went away")
            return super().read(min(size or 0, 512))

    for data in (tar_bytes(FILES), gzip.compress(tar_bytes([("r", bytes(5000))]), 0)):
        with pytest.raises(ConnectionResetError):
            list(read_members(Broken(data)))


class TestDamage:
    def test_no_tar_at_all(self) -> None:
        assert contents_before_damage(b"")[1] == "empty file"
        assert "not a tar header at byte 0" in contents_before_damage(b"no tar" * 200)[1]
        assert "cut, or no tar" in contents_before_damage(b"no tar")[1]
        assert "xz, only gzip" in contents_before_damage(b"\xfd7zXZ\0" + bytes(1000))[1]

    def test_empty_tar_is_no_damage(self) -> None:
        assert contents_before_damage(tar_bytes([])) == ([], "")

    def test_cut_anywhere_is_told_and_keeps_what_came_before(self) -> None:
        data = tar_bytes(FILES)
        end = -(-len(data.rstrip(b"\0")) // 512) * 512  # of the last member
        for length in range(0, end + 1, 100):
            found, message = contents_before_damage(data[:length])
            assert found == FILES[: len(found)]
            assert message, length
        assert contents_before_damage(data[:end]) == (FILES, "the tar ends without its end mark: it may have been cut")

    def test_cut_gzip_is_told(self) -> None:
        data = tar_bytes(FILES, compress=True)
        for length in range(2, len(data)):
            found, message = contents_before_damage(data[:length])
            assert found == FILES[: len(found)]
            assert message, length

    def test_wrong_checksum_of_gzip_is_told(self) -> None:
        data = bytearray(tar_bytes(FILES, compress=True))
        data[-8] ^= 1
        assert "CRC" in contents_before_damage(bytes(data))[1]

    def test_damaged_header_in_the_middle_is_told(self) -> None:
        data = bytearray(tar_bytes(FILES))
        second = data.index(b"b.txt")
        data[second] ^= 1
        assert contents_before_damage(bytes(data)) == (FILES[:1], f"not a tar header at byte {second}: bad checksum")

    def test_cut_member_is_named(self) -> None:
        with pytest.raises(TarDamage, match=r"inside a\.jpg: 488 of 700 bytes") as caught:
            contents(tar_bytes(FILES)[:1000])
        assert caught.value.member == "a.jpg"

    def test_extension_header_of_absurd_size_is_not_read(self) -> None:
        info = special_member("x", tarfile.XHDTYPE)
        info.size = MAX_EXTENSION_HEADER + 1
        assert "extension header" in contents_before_damage(info.tobuf() + bytes(2048))[1]

    @pytest.mark.parametrize("records", [b"9 path=x\n", b"99 path=x\n", b"path=x\n", b"10 size=-1\n", b"1 a=b\n"])
    def test_damaged_pax_header(self, records: bytes) -> None:
        info = special_member("x", tarfile.XHDTYPE)
        info.size = len(records)
        data = info.tobuf() + records.ljust(512, b"\0") + tar_bytes(FILES)
        found, message = contents_before_damage(data)
        if records != b"9 path=x\n":
            assert (found, "pax" in message) == ([], True)
        else:
            assert found[0][0] == "x"

    def test_absurd_sizes(self) -> None:
        info = tarfile.TarInfo("a.jpg")
        for size in (1 << 62, -5):
            info.size = size
            data = info.tobuf(tarfile.GNU_FORMAT) + b"abc"
            assert contents_skipping(data)

    @given(st.data())
    def test_flipped_bytes_never_raise_anything_else(self, data: st.DataObject) -> None:
        damaged = bytearray(tar_bytes(FILES, compress=data.draw(st.booleans())))
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        contents_before_damage(bytes(damaged))

    @given(st.binary(max_size=2000))
    def test_random_bytes_never_raise_anything_else(self, data: bytes) -> None:
        found, message = contents_before_damage(data)
        assert found == []
        assert message or not any(data)


def contents_skipping(data: bytes) -> str:
    """The message of the damage met when no content is read."""
    with pytest.raises(TarDamage) as caught:
        list(read_members(io.BytesIO(data)))
    return str(caught.value)

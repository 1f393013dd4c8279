"""Archives from outside: what is whole is read, what would do harm is refused."""

from __future__ import annotations

import contextlib
import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.data.sources.archives import Damaged, read_gzip, read_members, unpack

FILES = {"a/one.txt": b"1", "a/b/two.txt": b"22" * 5000, "empty": b""}


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def whole_tar(path: Path, mode: str = "w:gz") -> Path:
    return write_tar(path, [(tarfile.TarInfo(name), content) for name, content in FILES.items()], mode)


def whole_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_kind_of_tar_gives_its_files(tmp_path: Path, mode: str) -> None:
    assert dict(read_members(whole_tar(tmp_path / "x.tar", mode))) == FILES


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_every_kind_are_read_in_order(tmp_path: Path, format: int) -> None:
    # Long names, names that are not ASCII and times with a fraction take headers of their own; plain ones lie between.
    names = ["plain/a.txt", "d/" * 60 + "long.txt", "x" * 100, "é.txt", "./dotted//b.txt", "last"]
    with tarfile.open(tmp_path / "x.tar", "w", format=format) as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = number * 400, number + (0.5 if name == "last" else 0)
            archive.addfile(member, io.BytesIO(bytes([number]) * member.size))
    expected = [
        (name.replace("./", "").replace("//", "/"), bytes([number]) * number * 400)
        for number, name in enumerate(names)
    ]
    assert list(read_members(tmp_path / "x.tar")) == expected


@pytest.mark.parametrize("length", [100, 511, 513, 1000, 1025, 1500])
def test_a_tar_cut_anywhere_reads_as_tarfile_reads_it(tmp_path: Path, length: int) -> None:
    path = write_tar(
        tmp_path / "x.tar", [(tarfile.TarInfo("a"), b"1" * 400), (tarfile.TarInfo("b"), b"2")], "w"
    )
    path.write_bytes(path.read_bytes()[:length])
    # A header cut short ends the archive, unless it is the first; content cut short never passes.
    if length > 1024:
        assert list(read_members(path)) == [("a", b"1" * 400)]
    else:
        with pytest.raises(Damaged, match="not a whole archive"):
            list(read_members(path))


def test_zip_gives_its_files(tmp_path: Path) -> None:
    assert dict(read_members(whole_zip(tmp_path / "x.zip"))) == FILES


def test_only_wanted_members_are_read(tmp_path: Path) -> None:
    for archive in (whole_tar(tmp_path / "x.tar"), whole_zip(tmp_path / "x.zip")):
        assert [name for name, _ in read_members(archive, wanted=lambda name: name.startswith("a/"))] == [
            "a/one.txt",
            "a/b/two.txt",
        ]


def test_unpack_writes_all_files(tmp_path: Path) -> None:
    written = unpack(whole_tar(tmp_path / "x.tar"), tmp_path / "out")
    assert {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in written} == FILES


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil"])
def test_a_member_outside_the_target_is_refused_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    bad_tar = write_tar(
        tmp_path / "x.tar", [(tarfile.TarInfo("fine"), b"x"), (tarfile.TarInfo(name), b"evil")]
    )
    bad_zip = tmp_path / "x.zip"
    with zipfile.ZipFile(bad_zip, "w") as archive:
        archive.writestr("fine", b"x")
        archive.writestr(name, b"evil")
    for bad in (bad_tar, bad_zip):
        with pytest.raises(Damaged, match="outside the target"):
            unpack(bad, tmp_path / "target" / "out")
        assert list((tmp_path / "target").iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("inside")
    member.type = kind
    member.linkname = "/etc/passwd"
    with pytest.raises(Damaged, match="not a plain file"):
        list(read_members(write_tar(tmp_path / "x.tar", [(member, b"")])))


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("inside")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(Damaged, match="not a plain file"):
        list(read_members(tmp_path / "x.zip"))


def test_caps_on_size_and_count(tmp_path: Path) -> None:
    bomb = write_tar(tmp_path / "bomb.tar.gz", [(tarfile.TarInfo("zeros"), bytes(5_000_000))])
    assert bomb.stat().st_size < 50_000
    for archive in (bomb, whole_tar(tmp_path / "x.tar"), whole_zip(tmp_path / "x.zip")):
        with pytest.raises(Damaged, match="more than 9000 bytes"):
            list(read_members(archive, max_bytes=9000))
    for archive in (tmp_path / "x.tar", tmp_path / "x.zip"):
        with pytest.raises(Damaged, match="more than 2 members"):
            list(read_members(archive, max_count=2))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_truncated_tar_is_named(tmp_path: Path, mode: str) -> None:
    path = whole_tar(tmp_path / "x.tar", mode)
    whole = path.read_bytes()
    # A plain tar ends in blocks of zeros that carry nothing: cut within the content.
    path.write_bytes(whole[:3000] if mode == "w" else whole[:-6])
    with pytest.raises(Damaged, match=r"x\.tar is damaged"):
        list(read_members(path))


def test_every_flipped_byte_of_a_small_gzip_tar_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = whole_tar(tmp_path / "x.tar.gz")
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(Damaged):
            assert dict(read_members(path)) == FILES, place


def test_something_else_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(Damaged):
        list(read_members(tmp_path / "x"))
    with pytest.raises(FileNotFoundError):
        list(read_members(tmp_path / "absent"))


def test_read_gzip_gives_the_content_whole_or_not_at_all(tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content))
    assert read_gzip(path) == content
    with pytest.raises(Damaged, match="more than 1000 bytes"):
        read_gzip(path, max_bytes=1000)
    path.write_bytes(gzip.compress(content)[:-3])
    with pytest.raises(Damaged, match="not a whole compressed file"):
        read_gzip(path)
    path.write_bytes(content)
    assert read_gzip(path) == content

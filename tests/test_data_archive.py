"""Archives: what is unpacked, what is refused. Hostile ones are made by the tests."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from panelbench.data.archive import extract, open_archive
from panelbench.errors import DataError

Make = Callable[..., Path]


def make_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"" if name.endswith("/") else name)
    return path


def make_tar(path: Path, *names: str, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in names:
            info = tarfile.TarInfo(name)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            info.size = 0 if name.endswith("/") else len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    return path


both = pytest.mark.parametrize("make", [make_zip, make_tar])


def files_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


@both
def test_extract(tmp_path: Path, make: Make) -> None:
    archive = make(tmp_path / "a.pack", "./", "b/", "b/c.txt", "./a.txt", "b/d/e.txt")
    out = tmp_path / "out"
    assert extract(archive, out) == [out / "a.txt", out / "b" / "c.txt", out / "b" / "d" / "e.txt"]
    assert (out / "b" / "c.txt").read_text() == "b/c.txt"
    assert (out / "a.txt").read_text() == "./a.txt"
    assert len(extract(archive, out)) == 3  # again, over what is there


@both
def test_members_are_read_without_unpacking(tmp_path: Path, make: Make) -> None:
    path = make(tmp_path / "a.pack", "b/c.txt", "a.txt")
    with open_archive(path) as archive:
        assert sorted(archive.members) == ["a.txt", "b/c.txt"]
        with archive.open("b/c.txt") as stream:
            assert stream.read() == b"b/c.txt"
        with pytest.raises(DataError, match=r"no member 'c\.txt'; it holds a\.txt, b/c\.txt"):
            archive.open("c.txt")


def test_an_uncompressed_tar_gives_files_that_can_be_sought(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", "first.txt", "second.txt", mode="w")
    with open_archive(path) as archive, archive.open("second.txt") as stream:
        stream.seek(3)
        assert stream.read() == b"ond.txt"


@both
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil.txt", "outside the archive's folder"),
        ("/evil.txt", "outside the archive's folder"),
        ("a/../../evil.txt", "outside the archive's folder"),
        ("..\\evil", "outside the archive's folder"),
        ("C:\\evil", "outside the archive's folder"),
        ("", "no usable name"),
        (".", "no usable name"),
        ("./.", "no usable name"),
        ("bad\nname", "no usable name"),
        ("good.txt", "occurs twice"),
        ("./good.txt", "occurs twice"),
        ("good.txt/below", "both a file and a folder"),
        ("good.txt/", "both a file and a folder"),
        ("sub", "both a file and a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_refused(tmp_path: Path, make: Make, name: str, message: str) -> None:
    path = make(tmp_path / "a.pack", "good.txt", "sub/other.txt", name)
    with pytest.raises(DataError, match=rf"a\.pack: refused, .*{message}"):
        extract(path, tmp_path / "out")
    assert not files_below(tmp_path / "out")
    assert files_below(tmp_path) == ["a.pack"]


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        (tarfile.SYMTYPE, "../../etc/passwd", "'odd' is a link"),
        (tarfile.SYMTYPE, "good.txt", "'odd' is a link"),
        (tarfile.LNKTYPE, "/etc/passwd", "'odd' is a link"),
        (tarfile.CHRTYPE, "", "'odd' is a device"),
        (tarfile.FIFOTYPE, "", "'odd' is a device or pipe"),
    ],
)
def test_links_and_devices_of_a_tar_are_refused(
    tmp_path: Path, kind: bytes, target: str, message: str
) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("good.txt")
        archive.addfile(info)
        odd = tarfile.TarInfo("odd")
        odd.type, odd.linkname = kind, target
        archive.addfile(odd)
    with pytest.raises(DataError, match=message):
        extract(path, tmp_path / "out")
    assert not files_below(tmp_path / "out")


def test_links_and_encrypted_members_of_a_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("odd")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="'odd' is a link"):
        extract(path, tmp_path / "out")
    make_zip(path, "secret.txt")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"'secret\.txt' is encrypted"):
        extract(path, tmp_path / "out")


def bomb(path: Path, size: int) -> Path:
    """An archive of `size` zeros: about a thousandth of that on the disk."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", bytes(size))
    else:
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("zeros")
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    return path


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.tgz"])
def test_an_archive_larger_than_the_limit_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("panelbench.data.archive._SMALL", 10_000)
    path = bomb(tmp_path / name, 3_000_000)
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"unpacks to more than .* bytes.*max_unpacked"):
        extract(path, tmp_path / "out")
    assert not files_below(tmp_path / "out")
    assert extract(path, tmp_path / "out", max_unpacked=3_001_000)
    assert (tmp_path / "out" / "zeros").stat().st_size == 3_000_000


@both
def test_many_empty_members_count(tmp_path: Path, make: Make) -> None:
    path = make(tmp_path / "a.pack", *(f"f{i}" for i in range(100)))
    with pytest.raises(DataError, match="unpacks to more than"):
        extract(path, tmp_path / "out", max_unpacked=20_000)


def test_a_zip_that_lies_about_a_size_gives_no_more_than_it_says(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.zip", 1_000_000)
    data = path.read_bytes().replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged or unknown"):
        extract(path, tmp_path / "out", max_unpacked=2_000)
    assert (tmp_path / "out" / "zeros").stat().st_size <= 10


def test_damaged_archives(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"nothing")
    with pytest.raises(DataError, match="neither a zip nor a tar"):
        extract(tmp_path / "x.zip", tmp_path / "out")
    for make, name in ((make_tar, "cut.tgz"), (make_zip, "cut.zip")):
        whole = make(tmp_path / "a", *(f"file{i}" for i in range(2000))).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=r"damaged or unknown|neither a zip nor a tar"):
            extract(tmp_path / name, tmp_path / "out")
    path = bomb(tmp_path / "odd.zip", 1000)
    data = path.read_bytes().replace(b"\x08\x00", b"\x63\x00")
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"unknown kind of archive .*compression"):
        extract(path, tmp_path / "out")
    path = make_zip(tmp_path / "flipped.zip", "some longer name of a file.txt")
    data = path.read_bytes().replace(b"file.txtPK", b"fike.txtPK", 1)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged or unknown kind of archive \(Bad CRC"):
        extract(path, tmp_path / "out")

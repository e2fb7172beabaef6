"""Fetching: mirror, download, checksums. Downloads come from a server of the test."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from panelbench.data.fetch import fetch, source_checksum
from panelbench.data.specs import DatasetSpec, SourceFile
from panelbench.errors import DataError


class Server:
    def __init__(self, folder: Path, url: str, asked: list[str]) -> None:
        self.folder, self.url, self.asked = folder, url, asked


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder = tmp_path / "www"
    folder.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield Server(folder, f"http://127.0.0.1:{httpd.server_port}", asked)
        httpd.shutdown()
        thread.join()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def spec(url: str | None = None, digest: str | None = None, name: str = "a.bin") -> DatasetSpec:
    file = SourceFile(name=name, url=url, sha256=digest)
    return DatasetSpec(id="toy", reader="h5ad", files=(file,), homepage="https://example.org/toy")


def test_mirror_comes_first(tmp_path: Path, server: Server) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "a.bin").write_bytes(b"data")
    wanted = spec(f"{server.url}/a.bin", sha(b"data"))
    found = fetch(wanted, tmp_path / "dl", [tmp_path / "empty", mirror])
    assert found == {"a.bin": mirror / "a.bin"} and not server.asked


def test_download_once(tmp_path: Path, server: Server) -> None:
    (server.folder / "a.bin").write_bytes(b"data")
    wanted = spec(f"{server.url}/a.bin", sha(b"data"))
    for _ in range(2):
        found = fetch(wanted, tmp_path / "dl")
        assert found["a.bin"].read_bytes() == b"data"
    assert len(server.asked) == 1
    assert [p.name for p in (tmp_path / "dl" / "toy").iterdir()] == ["a.bin"]


def test_wrong_download_is_refused_and_not_kept(tmp_path: Path, server: Server) -> None:
    (server.folder / "a.bin").write_bytes(b"tampered")
    wanted = spec(f"{server.url}/a.bin", sha(b"data"))
    with pytest.raises(DataError) as error:
        fetch(wanted, tmp_path / "dl")
    assert sha(b"data") in str(error.value) and sha(b"tampered") in str(error.value)
    assert not list((tmp_path / "dl").rglob("*.bin*"))


def test_wrong_mirror_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"tampered")
    with pytest.raises(DataError, match=r"checksum mismatch of .*a\.bin.*delete it"):
        fetch(spec(digest=sha(b"data")), tmp_path / "dl", [tmp_path])


def test_first_digest_is_kept_and_later_files_must_match(tmp_path: Path, server: Server) -> None:
    (server.folder / "a.bin").write_bytes(b"data")
    wanted = spec(f"{server.url}/a.bin")
    first = source_checksum(wanted, tmp_path / "dl")
    pin = tmp_path / "dl" / "toy" / "a.bin.sha256"
    assert pin.read_text().split()[0] == sha(b"data")
    assert source_checksum(wanted, tmp_path / "dl") == first and len(server.asked) == 1
    (tmp_path / "dl" / "toy" / "a.bin").unlink()
    (server.folder / "a.bin").write_bytes(b"other")
    with pytest.raises(DataError, match="checksum mismatch of the download"):
        fetch(wanted, tmp_path / "dl")
    mirror = tmp_path / "m"
    mirror.mkdir()
    (mirror / "a.bin").write_bytes(b"other")
    with pytest.raises(DataError, match=r"if the new file is right, delete .*a\.bin\.sha256"):
        fetch(wanted, tmp_path / "dl", [mirror])


def test_offline_names_the_file_and_the_option(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DataError, match=r"cannot download .*404.*a\.bin.*--mirror"):
        fetch(spec(f"{server.url}/a.bin"), tmp_path / "dl")
    unreachable = "http://127.0.0.1:9/a.bin"
    with pytest.raises(DataError, match=r"without internet, put a\.bin into a folder.*--mirror"):
        fetch(spec(unreachable), tmp_path / "dl")
    with pytest.raises(DataError, match=r"no download address.*--mirror.*example\.org/toy"):
        fetch(spec(), tmp_path / "dl")


def test_declared_checksum_needs_no_file(tmp_path: Path) -> None:
    first = source_checksum(spec(digest=sha(b"1")), tmp_path)
    assert first != source_checksum(spec(digest=sha(b"2")), tmp_path)
    assert not list(tmp_path.iterdir())


def test_local_file_is_digested_again_only_when_it_changes(tmp_path: Path) -> None:
    local = tmp_path / "mine.h5ad"
    local.write_bytes(b"one")
    wanted, downloads = spec(name=str(local)), tmp_path / "dl"
    assert fetch(wanted, downloads) == {str(local): local}
    first = source_checksum(wanted, downloads)
    memory = downloads / "digests.json"
    known = json.loads(memory.read_text())
    known[str(local)][2] = "0" * 64
    memory.write_text(json.dumps(known))
    assert source_checksum(wanted, downloads) != first  # the remembered digest is used
    local.write_bytes(b"longer")
    third = source_checksum(wanted, downloads)
    local.write_bytes(b"one")
    assert source_checksum(wanted, downloads) == first != third
    # A file of one's own may change: nothing is pinned.
    assert not list(downloads.rglob("*.sha256"))


def test_broken_memory_is_only_forgotten(tmp_path: Path) -> None:
    local = tmp_path / "mine.h5ad"
    local.write_bytes(b"one")
    for text in ("{", "[]", '{"x": 1}'):
        (tmp_path / "digests.json").write_text(text)
        assert source_checksum(spec(name=str(local)), tmp_path) == source_checksum(
            spec(name=str(local)), tmp_path / "fresh"
        )


def test_missing_local_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        fetch(spec(name=str(tmp_path / "gone.h5ad")), tmp_path)


def test_file_of_a_package(tmp_path: Path) -> None:
    found = fetch(spec("package:panelbench/errors.py"), tmp_path)
    assert found["a.bin"].name == "errors.py"
    with pytest.raises(DataError, match="comes with nopackage, which is not installed"):
        fetch(spec("package:nopackage/x"), tmp_path)

"""Fetching: mirror, download, checksums. Downloads come from a server of the test."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import json
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from panelbench.data.content import complaint
from panelbench.data.download import _whole as whole
from panelbench.data.fetch import downloaded, fetch, source_checksum
from panelbench.data.specs import DatasetSpec, SourceFile
from panelbench.errors import ConfigError, DataError
from panelbench.schema import parse


@dataclass
class Server:
    """A web server; `cut` holds after how many bytes its next answers break off."""

    folder: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    delay: float = 0.0


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    folder = tmp_path / "www"
    folder.mkdir()
    found = Server(folder)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Write nothing."""

        def do_GET(self) -> None:
            found.asked.append(self.path)
            time.sleep(found.delay)
            super().do_GET()

        def copyfile(self, source: Any, outputfile: Any) -> None:
            outputfile.write(source.read(found.cut.pop(0) if found.cut else -1))

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        found.url = f"http://127.0.0.1:{httpd.server_port}"
        yield found
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
    assert not list((tmp_path / "dl" / "toy").iterdir())


def test_wrong_mirror_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"tampered")
    with pytest.raises(DataError, match=r"checksum mismatch of .*a\.bin.*delete .*a\.bin and try"):
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


def test_offline_names_the_file_and_the_option(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"cannot download .*404.*a\.bin.*--mirror"):
        fetch(spec(f"{server.url}/a.bin"), tmp_path / "dl")
    unreachable = "http://127.0.0.1:9/a.bin"
    with pytest.raises(
        DataError,
        match=r"no connection to the server\. Without internet.*put a\.bin into a folder.*--mirror",
    ):
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


@pytest.mark.parametrize(
    "file",
    [
        {"name": "a", "url": "package:../../etc/passwd"},
        {"name": "a", "url": "package:panelbench/../../secret"},
        {"name": "a", "url": "package:panelbench//etc/passwd"},
        {"name": "a", "url": "package:panelbench"},
        {"name": "a", "url": "file:///etc/passwd"},
        {"name": "../a", "url": "https://example.org/a"},
        {"name": "..", "url": "https://example.org/a"},
        {"name": ""},
    ],
)
def test_addresses_and_names_that_lead_elsewhere_are_refused(file: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"toy: files\.0"):
        parse(DatasetSpec, {"id": "toy", "reader": "h5ad", "files": [file]}, "toy")


PAGE = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.mark.parametrize("name", ["a.csv", "a.zip", "a.h5ad", "a.bin"])
def test_a_web_page_is_neither_kept_nor_pinned(tmp_path: Path, server: Server, name: str) -> None:
    (server.folder / name).write_bytes(PAGE)
    wanted = spec(f"{server.url}/{name}", name=name)
    with pytest.raises(DataError, match=r"gave is a web page, not .*not kept.*--mirror"):
        source_checksum(wanted, tmp_path / "dl")
    assert not list((tmp_path / "dl" / "toy").iterdir())
    (tmp_path / name).write_bytes(PAGE)  # nor from a mirror folder
    with pytest.raises(DataError, match=rf"{name} is a web page, not .*; delete it"):
        source_checksum(wanted, tmp_path / "dl", [tmp_path])
    assert not list((tmp_path / "dl").rglob("*.sha256"))
    declared = spec(f"{server.url}/{name}", sha(b"data"), name=name)
    with pytest.raises(DataError, match=r"checksum mismatch of the download .*; it is a web page"):
        fetch(declared, tmp_path / "dl")


def whole_files(folder: Path) -> dict[str, bytes]:
    """A file of each kind whose end can be looked at."""
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("x", bytes(3000))
    with tarfile.open(folder / "a.tar", "w") as tar:
        tar.add(folder / "a.zip", "x")
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = np.arange(1000)
    (folder / "a.csv.gz").write_bytes(gzip.compress(np.random.default_rng(0).bytes(3000)))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_cut_short_are_refused_where_their_end_tells(tmp_path: Path) -> None:
    for name, data in whole_files(tmp_path).items():
        path = tmp_path / name
        assert complaint(path) is None, name
        path.write_bytes(data[: len(data) * 2 // 3])
        assert complaint(path) == "is cut short", name
        path.write_bytes(b"PK" + data)
        assert "begins with b'PK" in str(complaint(path)), name
        path.write_bytes(b"")
        assert complaint(path) == "is empty", name


def test_a_broken_transfer_begins_again(tmp_path: Path, server: Server) -> None:
    (server.folder / "a.csv").write_bytes(b"a,b\n" * 1000)
    server.cut[:] = [100, 2000]
    wanted = spec(f"{server.url}/a.csv", name="a.csv")
    assert fetch(wanted, tmp_path / "dl")["a.csv"].stat().st_size == 4000
    assert len(server.asked) == 3
    (tmp_path / "dl" / "toy" / "a.csv").unlink()
    (tmp_path / "dl" / "toy" / "a.csv.sha256").unlink()
    server.cut[:] = [100] * 3
    with pytest.raises(DataError, match="cannot download"):
        fetch(wanted, tmp_path / "dl")
    assert not list((tmp_path / "dl" / "toy").iterdir())


@pytest.mark.parametrize("announced", [0, 4, 5])
def test_another_length_than_announced_is_refused(tmp_path: Path, announced: int) -> None:
    (tmp_path / "a").write_bytes(b"data")
    if announced == 5:
        with pytest.raises(OSError, match="4 bytes came, the server announced 5"):
            whole(tmp_path / "a", announced, None)
    else:
        whole(tmp_path / "a", announced, None)


def test_what_is_not_there_is_asked_for_once(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DataError, match="404"):
        fetch(spec(f"{server.url}/a.bin"), tmp_path / "dl")
    assert len(server.asked) == 1


def test_a_declared_size_is_said_and_checked(tmp_path: Path, server: Server) -> None:
    (server.folder / "a.csv").write_bytes(b"a,b\n" * 1000)
    file = SourceFile(name="a.csv", url=f"{server.url}/a.csv", size=291_000_000)
    wanted = DatasetSpec(id="toy", reader="h5ad", files=(file,))
    told: list[tuple[float, str]] = []
    with pytest.raises(DataError, match=r"4,000 bytes came, the entry says about 291,000,000"):
        fetch(wanted, tmp_path, say=lambda done, text: told.append((done, text)))
    assert f"downloading toy: a.csv, about 291 MB, from {server.url}/a.csv" in told[0][1]
    assert told[1][0] > 0


def test_a_plan_may_be_made_without_downloading(tmp_path: Path, server: Server) -> None:
    (server.folder / "a.bin").write_bytes(b"data")
    wanted = spec(f"{server.url}/a.bin")
    with pytest.raises(DataError, match=r"a\.bin is not downloaded yet; panelbench preprocess"):
        source_checksum(wanted, tmp_path, download=False)
    assert not server.asked
    expected = source_checksum(wanted, tmp_path)
    assert source_checksum(wanted, tmp_path, download=False) == expected


def test_many_processes_download_once(tmp_path: Path, server: Server) -> None:
    (server.folder / "a.csv").write_bytes(b"a,b\n" * 100_000)
    server.delay = 0.5
    code = (
        "import sys; from pathlib import Path; from panelbench.data.fetch import fetch\n"
        "from panelbench.data.specs import DatasetSpec, SourceFile\n"
        f"file = SourceFile(name='a.csv', url='{server.url}/a.csv')\n"
        "spec = DatasetSpec(id='toy', reader='h5ad', files=(file,))\n"
        "print(fetch(spec, Path(sys.argv[1]))['a.csv'].stat().st_size)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "dl")]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in running:
        out, errors = process.communicate(timeout=60)
        assert out.strip() == "400000", errors
    assert len(server.asked) == 1


def test_leftovers_of_a_killed_download_go(tmp_path: Path, server: Server) -> None:
    (server.folder / "a.bin").write_bytes(b"data")
    left = tmp_path / "dl" / "toy" / ".a.bin.01234567.part"
    left.mkdir(parents=True)
    (left / "tmp123").write_bytes(b"half")
    fetch(spec(f"{server.url}/a.bin"), tmp_path / "dl")
    assert sorted(p.name for p in left.parent.iterdir()) == ["a.bin", "a.bin.sha256"]


def test_files_to_delete_are_known(tmp_path: Path, server: Server) -> None:
    (server.folder / "a.bin").write_bytes(b"data")
    wanted = spec(f"{server.url}/a.bin")
    assert downloaded(wanted, tmp_path) == []
    fetch(wanted, tmp_path)
    assert [path.name for path in downloaded(wanted, tmp_path)] == ["a.bin", "a.bin.sha256"]

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from securefl.download import locate
from securefl.errors import DataUnavailable

CONTENT = b"63.0,1.0,1.0\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SECUREFL_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path / "cache" / "securefl"


class Source(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path.endswith("/file.data")
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(CONTENT if found else b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def source() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Source) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/file.data"
        server.shutdown()
        thread.join()


@pytest.fixture
def nowhere() -> str:
    with socket.socket() as free:  # a port that nothing listens on once this closes
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/file.data"


def test_a_file_is_fetched_checked_and_cached(source: str, cache: Path) -> None:
    path = locate("hearts", "file.data", SHA256, source)
    assert path == cache / "hearts" / "file.data"
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["file.data"]


def test_a_cached_file_needs_no_network(source: str, nowhere: str) -> None:
    fetched = locate("hearts", "file.data", SHA256, source)
    assert locate("hearts", "file.data", SHA256, nowhere) == fetched


def test_the_data_folder_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: str) -> None:
    (tmp_path / "data" / "hearts").mkdir(parents=True)
    (tmp_path / "data" / "hearts" / "file.data").write_bytes(CONTENT)
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path / "data"))
    assert locate("hearts", "file.data", SHA256, nowhere) == tmp_path / "data" / "hearts" / "file.data"


def test_a_data_folder_without_the_file_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, cache: Path
) -> None:
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path))
    assert locate("hearts", "file.data", SHA256, source) == cache / "hearts" / "file.data"


def test_missing_data_without_a_network_names_both_remedies_in_one_line(nowhere: str) -> None:
    with pytest.raises(DataUnavailable) as caught:
        locate("hearts", "file.data", SHA256, nowhere)
    message = str(caught.value)
    assert "\n" not in message
    assert "hearts/file.data is missing" in message
    assert "set SECUREFL_DATA to a folder that holds hearts/file.data" in message
    assert "connect to the network" in message
    assert caught.value.exit_code == 2


def test_a_source_that_no_longer_has_the_file_is_named(source: str) -> None:
    with pytest.raises(DataUnavailable, match=r"cannot be reached.*Not Found"):
        locate("hearts", "file.data", SHA256, source + ".gone")


def test_a_download_with_another_hash_is_refused_and_not_cached(source: str, cache: Path) -> None:
    with pytest.raises(DataUnavailable, match="is not the expected file"):
        locate("hearts", "file.data", "0" * 64, source)
    assert not cache.exists()


def test_an_altered_cached_file_is_refused_with_the_remedy(source: str, nowhere: str) -> None:
    locate("hearts", "file.data", SHA256, source).write_bytes(b"altered")
    with pytest.raises(DataUnavailable, match="delete it, and it is fetched again"):
        locate("hearts", "file.data", SHA256, nowhere)


def test_an_altered_file_in_the_data_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (tmp_path / "hearts").mkdir()
    (tmp_path / "hearts" / "file.data").write_bytes(b"altered")
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path))
    with pytest.raises(DataUnavailable, match="unset SECUREFL_DATA"):
        locate("hearts", "file.data", SHA256, source)


def test_a_cache_that_cannot_be_written_is_named(source: str, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.raises(DataUnavailable, match="set XDG_CACHE_HOME"):
        locate("hearts", "file.data", SHA256, source)


@pytest.mark.parametrize("url", ["http://example.org/file.data", "file:///etc/hostname", "ftp://example.org/file.data"])
def test_only_https_is_fetched(url: str) -> None:
    with pytest.raises(DataUnavailable, match="an https address is needed"):
        locate("hearts", "file.data", SHA256, url)


def test_how_a_file_was_packed_does_not_matter_where_its_inside_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: str
) -> None:
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path))
    (tmp_path / "hearts").mkdir()
    for level in (1, 9):
        (tmp_path / "hearts" / "file.gz").write_bytes(gzip.compress(CONTENT, level))
        path = locate("hearts", "file.gz", SHA256, nowhere, opened=gzip.decompress)
        assert gzip.decompress(path.read_bytes()) == CONTENT


@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(CONTENT)[:-3], gzip.compress(b"another")],
    ids=["no archive", "cut off", "another inside"],  # an archive has the time in it, and all processes need one name
)
def test_a_packed_file_with_another_inside_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: str
) -> None:
    monkeypatch.setenv("SECUREFL_DATA", str(tmp_path))
    (tmp_path / "hearts").mkdir()
    (tmp_path / "hearts" / "file.gz").write_bytes(content)
    with pytest.raises(DataUnavailable, match="is not the expected file"):
        locate("hearts", "file.gz", SHA256, nowhere, opened=gzip.decompress)


def test_a_file_is_taken_out_of_what_is_fetched(source: str, cache: Path) -> None:
    def longer(content: bytes) -> bytes:
        return content + b"more"

    path = locate("hearts", "file.data", hashlib.sha256(CONTENT + b"more").hexdigest(), source, extracted=longer)
    assert path.read_bytes() == CONTENT + b"more"


def test_an_archive_that_lacks_the_file_is_not_cached(source: str, cache: Path) -> None:
    def missing(content: bytes) -> bytes:
        raise KeyError("There is no item named 'file.data' in the archive")

    with pytest.raises(DataUnavailable, match="cannot be unpacked"):
        locate("hearts", "file.data", SHA256, source, extracted=missing)
    assert not (cache / "hearts").exists()

"""Downloads from a server on this computer: whole, resumed, refused, wrong, and by two processes at once."""

import errno
import io
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from p2ptrain.core.errors import ConfigError
from p2ptrain.tasks.loaders import download, files
from p2ptrain.tasks.loaders.known import SETS, Download, Known
from p2ptrain.tasks.loaders.progress import Progress

CONTENT = bytes(range(256)) * 4096


class Server(ThreadingHTTPServer):
    """Gives CONTENT, and remembers from where it was asked."""

    content = CONTENT
    breaks_after: int | None = None
    ranges = True
    status = 200
    states_length = True
    shifted = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/x"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers.get("Range", ""))
        if server.status != 200:
            self.send_error(server.status)
            return
        begin = int(server.asked[-1].removeprefix("bytes=").removesuffix("-") or 0) if server.ranges else 0
        if begin >= len(server.content):
            self.send_error(416)
            return
        body = server.content[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            place = begin + server.shifted
            self.send_header(
                "Content-Range", f"bytes {place}-{len(server.content) - 1}/{len(server.content)}"
            )
        if server.states_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("P2PTRAIN_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    one = Server()
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


def toy(server: Server, *, size: int = len(CONTENT), content: bytes = CONTENT, name: str = "a") -> Known:
    found = Download(name, (server.url,), size, files.digest(content, "0" * 32))
    return Known("Toy", (("a",),), ("toy",), downloads=(found,))


def test_a_file_is_downloaded_once(server, monkeypatch, capsys):
    monkeypatch.setitem(SETS, "toy", toy(server))
    folder = files.find("toy")
    assert (folder / "a").read_bytes() == CONTENT
    assert files.find("toy") == folder
    assert server.asked == [""]
    assert "Toy, a: 1.0 of 1.0 MB" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["a"]


@pytest.mark.parametrize("size", [len(CONTENT), 0])
def test_a_download_that_breaks_off_goes_on(server, tmp_path, size):
    server.breaks_after = 400_000
    download.fetch(toy(server, size=size), tmp_path / "toy")
    assert (tmp_path / "toy" / "a").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=400000-", "bytes=800000-"]


def test_what_a_killed_process_left_is_used(server, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.part").write_bytes(CONTENT[:1000])
    download.fetch(toy(server), tmp_path / "toy")
    assert server.asked == ["bytes=1000-"]
    assert (tmp_path / "toy" / "a").read_bytes() == CONTENT
    (tmp_path / "toy" / "a").rename(tmp_path / "toy" / "a.part")
    download.fetch(toy(server), tmp_path / "toy")
    assert server.asked == ["bytes=1000-"]


@pytest.mark.parametrize("left", [b"wrong" * 100, CONTENT + b"too long", CONTENT[:-1] + b"!"])
@pytest.mark.parametrize("size", [len(CONTENT), 0])
def test_what_was_left_and_is_wrong_is_got_anew(server, tmp_path, left, size):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.part").write_bytes(left)
    download.fetch(toy(server, size=size), tmp_path / "toy")
    assert (tmp_path / "toy" / "a").read_bytes() == CONTENT


def test_a_damaged_download_is_deleted_by_its_owner(server, monkeypatch):
    monkeypatch.setitem(SETS, "toy", toy(server))
    damaged = files.find("toy") / "a"
    damaged.write_bytes(b"")
    with pytest.raises(
        ConfigError, match="a cannot be read: it is empty\ndelete it, and it is downloaded again"
    ):
        files.read(damaged)
    damaged.unlink()
    assert files.read(files.find("toy") / "a") == CONTENT


def test_a_server_without_ranges_gives_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.part").write_bytes(CONTENT[:1000])
    download.fetch(toy(server), tmp_path / "toy")
    assert (tmp_path / "toy" / "a").read_bytes() == CONTENT


def test_a_server_that_gives_another_range_is_not_believed(server, tmp_path):
    server.shifted = 5
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "a.part").write_bytes(CONTENT[:1000])
    download.fetch(toy(server), tmp_path / "toy")
    assert (tmp_path / "toy" / "a").read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-", ""]


def refused(known: Known, folder: Path) -> str:
    with pytest.raises(ConfigError) as error:
        download.fetch(known, folder)
    assert not (folder / "a").exists()
    return error.value.message


def test_wrong_bytes_are_refused_and_not_kept(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    assert "its checksum is wrong" in refused(toy(server), tmp_path / "toy")
    assert list((tmp_path / "toy").iterdir()) == []
    assert server.asked == [""]


def test_too_much_is_not_written(server, tmp_path):
    server.content = CONTENT * 2
    assert "more than the 1048576 bytes" in refused(toy(server), tmp_path / "toy")
    assert sum(path.stat().st_size for path in (tmp_path / "toy").iterdir()) == 0


def test_what_always_breaks_off_is_given_up(server, tmp_path):
    server.breaks_after = 1000
    message = refused(toy(server), tmp_path / "toy")
    assert f"the connection ended after {1000 * download.TRIES} of 1048576 bytes" in message
    assert (tmp_path / "toy" / "a.part").stat().st_size == 1000 * download.TRIES


def test_an_end_that_nobody_announced_is_noticed(server, tmp_path):
    server.states_length = False
    server.breaks_after = 1000
    assert "checksum" in refused(toy(server, size=0), tmp_path / "toy")


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_refusal_is_passed_on(server, tmp_path, status):
    server.status = status
    assert f"getting {server.url} failed: the server answers {status}" in refused(
        toy(server), tmp_path / "toy"
    )


def test_the_next_address_is_tried(server, tmp_path):
    known = toy(server)
    (one,) = known.downloads
    twice = Download(one.name, ("http://127.0.0.1:1/x", server.url), one.size, one.digest)
    download.fetch(Known("Toy", known.layouts, ("toy",), downloads=(twice,)), tmp_path / "toy")
    assert (tmp_path / "toy" / "a").read_bytes() == CONTENT


def test_without_a_connection_the_fix_is_said(server, monkeypatch):
    known = toy(server)
    nowhere = Download("a", ("http://127.0.0.1:1/x",), 5, known.downloads[0].digest)
    monkeypatch.setitem(SETS, "toy", Known("Toy", (("a",),), ("toy",), downloads=(nowhere,)))
    with pytest.raises(ConfigError) as error:
        files.find("toy")
    assert "Toy is not here" in error.value.message
    assert "no connection to 127.0.0.1" in error.value.message
    assert "put a into a folder, and name it with --data" in error.value.hint


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "nothing"])
def test_only_http_is_spoken(server, tmp_path, url):
    known = Known("Toy", (("a",),), ("toy",), downloads=(Download("a", (url,), 5, "0" * 32),))
    assert f"getting {url} failed" in refused(known, tmp_path / "toy")


def test_a_full_disk_is_told_before_and_while_writing(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
        assert "has 1 MB left, and 68 MB are needed" in refused(toy(server), tmp_path / "toy")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download.os, "fsync", full)
    assert "cannot be written: the disk is full" in refused(toy(server), tmp_path / "toy")


def test_a_folder_that_cannot_be_made_is_told(server, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(toy(server), tmp_path / "file" / "toy")


def test_an_archive_is_unpacked_and_does_not_stay(server, tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in ("top/a", "top/b"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    server.content = out.getvalue()
    known = toy(server, size=len(server.content), content=server.content, name="toy.tar.gz")
    download.fetch(known, tmp_path / "toy")
    assert (tmp_path / "toy" / "a").read_bytes() == b"abc"
    assert not (tmp_path / "toy.tar.gz").exists()
    download.fetch(known, tmp_path / "toy")
    assert len(server.asked) == 1


def fetch_in_another_process(url: str, folder: Path) -> None:
    found = Download("a", (url,), len(CONTENT), files.digest(CONTENT, "0" * 32))
    download.fetch(Known("Toy", (("a",),), ("toy",), downloads=(found,)), folder)


def test_two_at_once_download_once(server, tmp_path):
    threads = [
        threading.Thread(target=fetch_in_another_process, args=(server.url, tmp_path / "toy"))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "toy" / "a").read_bytes() == CONTENT
    assert server.asked == [""]


def test_another_process_is_waited_for(server, tmp_path, capsys):
    code = "import sys, importlib.util as u; s = u.spec_from_file_location('t', sys.argv[1]); "
    code += "t = u.module_from_spec(s); s.loader.exec_module(t); print('ready', flush=True); "
    code += "t.fetch_in_another_process(sys.argv[2], t.Path(sys.argv[3]))"
    words = [sys.executable, "-c", code, __file__, server.url, str(tmp_path / "toy")]
    with download.alone(tmp_path / "toy", "Toy"):
        other = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1.0)
        assert server.asked == []
    other.communicate()
    assert other.returncode == 0
    assert server.asked == [""]


def test_a_bar_for_people_and_lines_for_a_log(monkeypatch, capsys):
    with Progress("Toy", 1_000_000) as progress:
        for done in range(0, 1_000_001, 10_000):
            progress.at(done)
    assert len(capsys.readouterr().err.splitlines()) == 5
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("Toy", 1_000_000) as progress:
        progress.at(0)
        progress.at(1_000_000)
    shown = capsys.readouterr().err
    assert "[##############################] 1.0 of 1.0 MB, 0 s left" in shown
    assert shown.endswith("\n")
    monkeypatch.setattr(sys, "stderr", None)
    with Progress("Toy", 0) as progress:
        progress.at(1)

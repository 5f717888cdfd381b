import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from bslbench.catalog import DatasetSpec, FileSpec
from bslbench.download import ATTEMPTS, download
from bslbench.errors import DownloadError

CONTENT = bytes(range(256)) * 2000
Answer = Callable[["Handler"], None]


@dataclass
class Site:
    """A server on this machine: what it serves, what it was asked, how it misbehaves."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)  # used up one by one, then all goes well

    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.asked]


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        self.site.asked.append((self.path, self.headers["Range"]))
        answer = self.site.answers.pop(0) if self.site.answers else serve
        answer(self)

    def start(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve(handler: Handler, drop_after: int | None = None) -> None:
    """Answer as a server should, but for closing the connection early."""
    content = handler.site.files.get(handler.path)
    if content is None:
        return handler.start(404, 0)
    first = int((handler.headers["Range"] or "bytes=0-")[len("bytes=") : -1])
    if first >= len(content):
        return handler.start(416, 0, Content_Range=f"bytes */{len(content)}")
    rest = content[first:]
    if first:
        span = f"bytes {first}-{len(content) - 1}/{len(content)}"
        handler.start(206, len(rest), Content_Range=span)
    else:
        handler.start(200, len(rest))
    handler.wfile.write(rest[:drop_after])
    return None


def dropping(after: int) -> Answer:
    return lambda handler: serve(handler, after)


def ignoring_range(handler: Handler) -> None:
    content = handler.site.files[handler.path]
    handler.start(200, len(content))
    handler.wfile.write(content)


def failing(status: int) -> Answer:
    return lambda handler: handler.start(status, 0)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(files={"/file.txt": CONTENT})
    handler = type("SiteHandler", (Handler,), {"site": site})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


def spec_of(site: Site, content: bytes = CONTENT, **known: object) -> DatasetSpec:
    known = known or {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    file = FileSpec.model_validate({"name": "file.txt", "url": f"{site.url}/file.txt"} | known)
    return DatasetSpec(name="mine", reader="pairs", files={"train": file, "test": file})


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()} - {".lock"}


def no_sleep(_: float) -> None:
    pass


def test_second_call_asks_for_nothing(site: Site, client: httpx.Client, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []

    def progress(name: str, done: int, total: int | None) -> None:
        seen.append((name, done, total))

    spec = spec_of(site)
    path = tmp_path / "mine" / "file.txt"
    assert download(spec, tmp_path, client=client, progress=progress) == [path]
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == {"file.txt"}
    assert seen[-1] == ("file.txt", len(CONTENT), len(CONTENT))
    assert len(site.asked) == 1
    assert download(spec, tmp_path, client=client) == []
    assert len(site.asked) == 1
    assert download(spec, tmp_path, client=client, force=True) == [path]
    assert len(site.asked) == 2


def test_a_wrong_file_there_is_replaced(site: Site, client: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "mine" / "file.txt"
    path.parent.mkdir()
    path.write_bytes(b"something else")
    assert download(spec_of(site), tmp_path, client=client) == [path]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("size_known", [True, False])
def test_a_dropped_connection_is_resumed(
    site: Site, client: httpx.Client, tmp_path: Path, size_known: bool
) -> None:
    site.answers = [dropping(100_000), dropping(50_000)]
    waits: list[float] = []
    known = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    spec = spec_of(site, **known) if not size_known else spec_of(site)
    download(spec, tmp_path, client=client, sleep=waits.append)
    assert (tmp_path / "mine" / "file.txt").read_bytes() == CONTENT
    assert site.ranges() == [None, "bytes=100000-", "bytes=150000-"]
    assert waits == [1.0, 2.0]


def test_a_later_call_goes_on_where_one_gave_up(
    site: Site, client: httpx.Client, tmp_path: Path
) -> None:
    site.answers = [dropping(1000)] * ATTEMPTS
    with pytest.raises(DownloadError, match=rf"{site.url}/file.txt: .*{ATTEMPTS} attempts"):
        download(spec_of(site), tmp_path, client=client, sleep=no_sleep)
    assert names(tmp_path) == {"file.txt.part"}
    download(spec_of(site), tmp_path, client=client, sleep=no_sleep)
    assert site.ranges()[-1] == f"bytes={1000 * ATTEMPTS}-"
    assert (tmp_path / "mine" / "file.txt").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges(site: Site, client: httpx.Client, tmp_path: Path) -> None:
    site.answers = [dropping(1000), ignoring_range]
    download(spec_of(site), tmp_path, client=client, sleep=no_sleep)
    assert site.ranges() == [None, "bytes=1000-"]
    assert (tmp_path / "mine" / "file.txt").read_bytes() == CONTENT


def test_a_server_that_sends_another_range(
    site: Site, client: httpx.Client, tmp_path: Path
) -> None:
    def another_range(handler: Handler) -> None:
        handler.start(206, 0, Content_Range=f"bytes 5-9/{len(CONTENT)}")

    site.answers = [dropping(1000), another_range]
    download(spec_of(site), tmp_path, client=client, sleep=no_sleep)
    assert site.ranges() == [None, "bytes=1000-", None]
    assert (tmp_path / "mine" / "file.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
@pytest.mark.parametrize("size_known", [True, False])
def test_a_part_of_another_file_is_not_trusted(
    site: Site, client: httpx.Client, tmp_path: Path, stale: bytes, size_known: bool
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file.txt.part").write_bytes(stale)
    known = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    spec = spec_of(site, **known) if not size_known else spec_of(site)
    download(spec, tmp_path, client=client, sleep=no_sleep)
    assert (tmp_path / "mine" / "file.txt").read_bytes() == CONTENT
    assert site.ranges()[-1] is None


def test_without_a_checksum_nothing_is_resumed(
    site: Site, client: httpx.Client, tmp_path: Path
) -> None:
    site.answers = [dropping(1000)]
    download(spec_of(site, bytes=len(CONTENT)), tmp_path, client=client, sleep=no_sleep)
    assert site.ranges() == [None, None]
    assert (tmp_path / "mine" / "file.txt").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["sha256", "git_blob"])
def test_a_wrong_checksum_leaves_no_file(
    site: Site, client: httpx.Client, tmp_path: Path, kind: str
) -> None:
    wrong = "0" * (64 if kind == "sha256" else 40)
    with pytest.raises(DownloadError, match=r"mine/file\.txt from http.*expected 000000000000"):
        download(spec_of(site, **{kind: wrong}), tmp_path, client=client)
    assert names(tmp_path) == set()
    assert len(site.asked) == 1


def test_a_body_without_end_is_cut(site: Site, client: httpx.Client, tmp_path: Path) -> None:
    site.files["/file.txt"] = CONTENT * 100
    done: list[int] = []
    with pytest.raises(DownloadError, match="expected 512,000"):
        download(
            spec_of(site), tmp_path, client=client, progress=lambda _n, size, _t: done.append(size)
        )
    assert done[-1] < 2 * len(CONTENT)
    assert names(tmp_path) == set()


def test_404_names_the_url_at_once(site: Site, client: httpx.Client, tmp_path: Path) -> None:
    site.files.clear()
    with pytest.raises(DownloadError, match=f"{site.url}/file.txt: 404 Not Found"):
        download(spec_of(site), tmp_path, client=client)
    assert len(site.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failures_are_retried(
    site: Site, client: httpx.Client, tmp_path: Path, status: int
) -> None:
    site.answers = [failing(status)] * (ATTEMPTS - 1)
    waits: list[float] = []
    download(spec_of(site), tmp_path, client=client, sleep=waits.append)
    assert waits == [1.0, 2.0, 4.0]
    site.answers = [failing(status)] * ATTEMPTS
    with pytest.raises(DownloadError, match=f"{status} .*{ATTEMPTS} attempts"):
        download(spec_of(site), tmp_path, client=client, force=True, sleep=no_sleep)


def test_a_redirect_is_followed(site: Site, client: httpx.Client, tmp_path: Path) -> None:
    site.files["/moved.txt"] = site.files.pop("/file.txt")
    site.answers = [lambda handler: handler.start(302, 0, Location="/moved.txt")]
    download(spec_of(site), tmp_path, client=client)
    assert (tmp_path / "mine" / "file.txt").read_bytes() == CONTENT


def test_a_mirror_stands_for_the_catalogs_url(
    site: Site, client: httpx.Client, tmp_path: Path
) -> None:
    site.files = {"/deep/mine/file.txt": CONTENT}
    download(spec_of(site), tmp_path, mirror=f"{site.url}/deep/", client=client)
    assert [path for path, _ in site.asked] == ["/deep/mine/file.txt"]
    with pytest.raises(DownloadError, match=r"file:///x/mine/file\.txt: not an http"):
        download(spec_of(site), tmp_path, mirror="file:///x", client=client, force=True)


def test_a_file_without_url_is_to_be_put_there(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"put it at {tmp_path}/mine/file.txt"):
        download(spec_of(Site(), url=""), tmp_path)


def test_copying_from_a_folder(tmp_path: Path) -> None:
    source, data = tmp_path / "source", tmp_path / "data"
    spec = spec_of(Site(url="http://unused"))
    origin = source / "mine" / "file.txt"
    with pytest.raises(DownloadError, match=f"{origin}: No such file"):
        download(spec, data, source=source)
    origin.parent.mkdir(parents=True)
    origin.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match=f"mine/file.txt from {origin}: it has 511,999 bytes"):
        download(spec, data, source=source)
    assert names(data) == set()
    origin.write_bytes(CONTENT)
    assert download(spec, data, source=source) == [data / "mine" / "file.txt"]
    assert names(data) == {"file.txt"}
    assert download(spec, data, source=source) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(DownloadError, match="taken"):
        download(spec_of(Site(url="http://unused")), tmp_path / "taken", source=tmp_path)


def test_two_at_once_fetch_once(site: Site, tmp_path: Path) -> None:
    def one(_: int) -> list[Path]:
        with httpx.Client(trust_env=False) as client:
            return download(spec_of(site), tmp_path, client=client, sleep=no_sleep)

    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(one, range(4)))
    assert sorted(map(len, fetched)) == [0, 0, 0, 1]
    assert len(site.asked) == 1
    assert (tmp_path / "mine" / "file.txt").read_bytes() == CONTENT

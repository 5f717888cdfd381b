"""Download: fetch a dataset's files, resume, verify, and only then put them in their place."""

import os
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import httpx
from filelock import FileLock

from bslbench.catalog import CHUNK, DatasetSpec, FileSpec, difference
from bslbench.errors import DownloadError

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes done and the bytes in all, if these are known."""

ATTEMPTS = 4


def download(
    spec: DatasetSpec,
    data: Path,
    *,
    source: Path | None = None,
    mirror: str | None = None,
    force: bool = False,
    client: httpx.Client | None = None,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Bring a dataset's files to ``data/<dataset>/``; those there and right stay untouched.

    Parameters
    ----------
    source
        Copy from ``source/<dataset>/<file>`` instead of fetching (``--from``).
    mirror
        Base URL; ``mirror/<dataset>/<file>`` stands for the catalog's URL.
    force
        Fetch even what is there and right.
    progress
        Told how far each file is.
    sleep
        Waits the given seconds before another attempt.

    Returns
    -------
    list of Path
        The files fetched; empty if there was nothing to do.

    Raises
    ------
    DownloadError
        Naming the file or the URL, and what is wrong with it. A wrong file is not left behind.
    """

    def wanted() -> list[FileSpec]:
        return [
            file for file in spec.downloads if force or not _is_right(spec.path(file, data), file)
        ]

    if not wanted():  # before locking: the folder may be read-only
        return []
    folder = data / spec.name
    fetched = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"), _session(client) as http:
            for file in wanted():  # again: another process may have fetched them meanwhile
                path = spec.path(file, data)
                part = path.with_name(path.name + ".part")
                job = _Job(file, _origin(spec, file, data, source, mirror), part, progress)
                if source is not None:
                    _copy(job)
                elif _fetch(job, http, sleep) and difference(part, file):
                    part.unlink()  # its first bytes were another file's: once more, from the start
                    _fetch(job, http, sleep)
                if differs := difference(part, file):
                    part.unlink()
                    raise DownloadError(f"{spec.name}/{file.name} from {job.origin}: {differs}")
                os.replace(part, path)
                fetched.append(path)
    except OSError as error:
        raise DownloadError(f"{error.filename or folder}: {error.strerror}") from error
    return fetched


@dataclass(frozen=True)
class _Job:
    """One file to bring from `origin` (a URL or a path) to `part`."""

    file: FileSpec
    origin: str
    part: Path
    progress: Progress | None

    def tell(self, done: int, total: int | None) -> None:
        if self.progress is not None:
            self.progress(self.file.name, done, total)


class _Interrupted(Exception):
    """An answer that a later attempt may better."""


def _is_right(path: Path, file: FileSpec) -> bool:
    return path.is_file() and not difference(path, file)


def _session(client: httpx.Client | None) -> nullcontext[httpx.Client] | httpx.Client:
    return nullcontext(client) if client is not None else httpx.Client(timeout=30)


def _origin(
    spec: DatasetSpec, file: FileSpec, data: Path, source: Path | None, mirror: str | None
) -> str:
    if source is not None:
        return str(spec.path(file, source))
    url = f"{mirror.rstrip('/')}/{spec.name}/{file.name}" if mirror else file.url
    if not url:
        raise DownloadError(
            f"the catalog has no URL for {spec.name}/{file.name}: put it at {spec.path(file, data)}"
        )
    if not re.match(r"https?://", url):
        raise DownloadError(f"{url}: not an http or https address")
    return url


def _copy(job: _Job) -> None:
    total = os.stat(job.origin).st_size
    with open(job.origin, "rb") as stream, job.part.open("wb") as out:
        while block := stream.read(CHUNK):
            out.write(block)
            job.tell(out.tell(), total)


def _fetch(job: _Job, http: httpx.Client, sleep: Callable[[float], None]) -> bool:
    """Fetch in a few attempts; tell whether the last one went on from bytes that were there."""
    for attempt in range(ATTEMPTS):
        if attempt:
            sleep(2.0 ** (attempt - 1))
        try:
            return _stream(job, http)
        except (httpx.TransportError, _Interrupted) as error:
            last = error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise DownloadError(f"{job.origin}: {error}") from error
    raise DownloadError(f"{job.origin}: {last} ({ATTEMPTS} attempts)") from last


def _stream(job: _Job, http: httpx.Client) -> bool:
    """Make one request, for the bytes that `part` lacks; tell whether the server went along.

    Only a checksum can tell that the first bytes are right: without one, each request is for all.
    """
    have = job.part.stat().st_size if job.file.has_checksum and job.part.exists() else 0
    if job.file.bytes is not None and have >= job.file.bytes:
        have = 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with http.stream("GET", job.origin, headers=headers, follow_redirects=True) as response:
        status = f"{response.status_code} {response.reason_phrase}"
        resumes = have > 0 and response.status_code == 206
        served = response.headers.get("Content-Range", "")
        if response.status_code == 416 or (resumes and not served.startswith(f"bytes {have}-")):
            job.part.unlink(missing_ok=True)
            raise _Interrupted(f"{status}, range {served or 'not named'}")
        if response.status_code == 429 or response.status_code >= 500:
            raise _Interrupted(status)
        if not response.is_success:
            raise DownloadError(f"{job.origin}: {status}")
        done = have if resumes else 0
        length = response.headers.get("Content-Length", "")
        total = job.file.bytes or (done + int(length) if length.isdigit() else None)
        with job.part.open("ab" if resumes else "wb") as out:
            for block in response.iter_bytes():
                out.write(block)
                done += len(block)
                job.tell(done, total)
                if job.file.bytes is not None and done > job.file.bytes:
                    break  # not the file it should be: the check will say so
    return resumes

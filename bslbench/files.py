"""Files written whole or not at all, and folders that one process at a time writes to."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from bslbench.errors import InUse, StoreError


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn an error of the disk into a `StoreError` that names the place."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {place}: {error.strerror or error}") from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file of a temporary name beside `path`, at the end synced and renamed.

    Readers see all of it or nothing; who has the old one open keeps that.

    Raises
    ------
    StoreError
        If the disk is full or does not let us.
    """
    with writing(path):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, as `replacing` does."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def locked(folder: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock of a folder, made if need be and cleared of half-written files.

    Raises
    ------
    InUse
        If another process still holds it after `timeout` seconds; -1 waits for ever.
    StoreError
        If the folder cannot be written.
    """
    lock = FileLock(folder / ".lock", timeout=timeout)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise InUse(f"{folder} is being trained by another process") from error
    try:
        with writing(folder):
            for leftover in folder.glob(".[!l]*.*"):
                leftover.unlink(missing_ok=True)
        yield
    finally:
        lock.release()

"""Where publications and live pointers lie: a local folder, or any address that fsspec understands (s3://bucket/sid).

A store hands out bytes under relative paths and keeps two promises: a small file is replaced whole, and a folder is
installed such that its manifest appears last. On a local disk the folder is renamed; an object store has no rename, so
there the files are put first and the manifest after them. A folder without a manifest does not exist for readers.
"It is not there" and "it cannot be looked at" are never the same answer. What does not belong here: what the files
mean.

Options of an address (endpoint, credentials) are fsspec's own: its configuration files or variables such as
`FSSPEC_S3_ENDPOINT_URL`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from sid_pipeline.files import file_sha256, sync_folder, write_atomically

MANIFEST = "manifest.json"
_BLOCK = 1 << 20


class PublicationError(RuntimeError):
    """A publication that is missing, unfinished, damaged or not to be made; the message names the file or row."""


class StoreNotReached(PublicationError):
    """An object store did not answer, or refused; what lies there is not known. The message names the address and the
    kind of fault, without the client's own text, which may hold credentials."""


class Store(Protocol):
    """A tree of files under one root; all paths are relative to it, their steps joined by '/'. Every method of an
    object store may raise StoreNotReached."""

    root: str

    def exists(self, path: str) -> bool:
        """Whether there is a file at `path`."""

    def names(self, folder: str) -> list[str]:
        """Names in a folder, in order; empty when there is no such folder."""

    def read(self, path: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""

    def open(self, path: str) -> IO[bytes] | pa.NativeFile:
        """A file for random access, e.g. for Parquet; a local one is mapped into memory. Raises FileNotFoundError."""

    def sha256(self, path: str) -> str:
        """Hash of a file's content, as hexadecimal digits. Raises FileNotFoundError."""

    def write(self, path: str, text: str) -> None:
        """Replace a small file whole: a reader sees the old content or the new."""

    def install(self, scratch: Path, folder: str) -> None:
        """Move a finished local folder to `folder`, its manifest last; `scratch` is gone afterwards."""

    def remove(self, folder: str) -> None:
        """Remove a folder and all below it, manifests first, so that no half of a publication can be opened."""

    def size(self, folder: str) -> int:
        """Bytes of all files below a folder."""

    def scratch(self, otherwise: Path) -> Path:
        """A local folder from which `install` is cheapest; `otherwise` where the store itself is not local."""


def open_store(root: str | Path) -> Store:
    """The store at a local folder or an fsspec address of an object store, which replaces an object whole or not at
    all (s3, gcs, abfs); on a file server a reader could meet half a file."""
    address = str(root)
    if re.match(r"^[a-z][a-z0-9+.-]+://", address) and not address.startswith("file://"):
        return ObjectStore(address)
    return LocalStore(Path(address.removeprefix("file://")))


class LocalStore:
    """A folder of this machine, or of a disk that it shares."""

    def __init__(self, root: Path) -> None:
        self.folder = root.expanduser()
        self.root = str(self.folder)

    def exists(self, path: str) -> bool:
        return (self.folder / path).is_file()

    def names(self, folder: str) -> list[str]:
        where = self.folder / folder
        return sorted(os.listdir(where)) if where.is_dir() else []

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def open(self, path: str) -> pa.NativeFile:
        return pa.memory_map(str(self.folder / path))

    def sha256(self, path: str) -> str:
        return file_sha256(self.folder / path)

    def write(self, path: str, text: str) -> None:
        write_atomically(self.folder / path, text)

    def install(self, scratch: Path, folder: str) -> None:
        target = self.folder / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in sorted(scratch.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if target.is_dir() and not (target / MANIFEST).exists():
            shutil.rmtree(target)  # copied there by hand and not to its end: nobody could open it
        scratch.rename(target)
        sync_folder(target.parent)

    def remove(self, folder: str) -> None:
        for manifest in (self.folder / folder).glob(f"**/{MANIFEST}"):
            manifest.unlink()
        shutil.rmtree(self.folder / folder, ignore_errors=True)

    def size(self, folder: str) -> int:
        return sum(path.stat().st_size for path in (self.folder / folder).rglob("*") if path.is_file())

    def scratch(self, otherwise: Path) -> Path:
        return self.folder / ".scratch"  # on the same disk, so that the rename is one


class ObjectStore:
    """An fsspec address, e.g. s3://bucket/prefix; every object is replaced whole by nature."""

    def __init__(self, root: str) -> None:
        from fsspec.core import url_to_fs

        # A pointer that another process has just moved must be seen, so listings are not cached.
        self._fs, self._prefix = url_to_fs(root.rstrip("/"), use_listings_cache=False)
        self.root = root.rstrip("/")

    def exists(self, path: str) -> bool:
        # Not `isfile`, for which whatever fails is a file that is not there.
        try:
            with self._reached(path):
                return self._fs.info(self._at(path))["type"] == "file"
        except FileNotFoundError:
            return False

    def names(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            with self._reached(folder):
                found = self._fs.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)

    def read(self, path: str) -> bytes:
        with self._reached(path):
            return bytes(self._fs.cat_file(self._at(path)))

    def open(self, path: str) -> IO[bytes]:
        with self._reached(path):
            return self._fs.open(self._at(path), "rb")

    def sha256(self, path: str) -> str:
        sha = hashlib.sha256()
        with self._reached(path), self._fs.open(self._at(path), "rb", block_size=8 * _BLOCK) as file:
            for block in iter(lambda: file.read(8 * _BLOCK), b""):
                sha.update(block)
        return sha.hexdigest()

    def write(self, path: str, text: str) -> None:
        with self._reached(path):
            self._fs.pipe_file(self._at(path), text.encode())

    def install(self, scratch: Path, folder: str) -> None:
        for path in sorted(scratch.rglob("*"), key=lambda p: (p == scratch / MANIFEST, p)):
            if not path.is_file():
                continue
            name = f"{folder}/{path.relative_to(scratch).as_posix()}"
            with self._reached(name):
                self._fs.put_file(str(path), self._at(name))
                there = self._fs.info(self._at(name))["size"]
            if there != (put := path.stat().st_size):
                raise StoreNotReached(f"{self.root}/{name} holds {there} bytes, though {put} were put there")
        shutil.rmtree(scratch)

    def remove(self, folder: str) -> None:
        self._fs.invalidate_cache()
        with self._reached(folder):
            below = self._fs.find(self._at(folder))
            for path in sorted(below, key=lambda path: not path.endswith(f"/{MANIFEST}")):
                self._fs.rm_file(path)

    def size(self, folder: str) -> int:
        with self._reached(folder):
            return sum(info["size"] for info in self._fs.find(self._at(folder), detail=True).values())

    def scratch(self, otherwise: Path) -> Path:
        return otherwise

    def _at(self, path: str) -> str:
        return f"{self._prefix}/{path}"

    @contextmanager
    def _reached(self, path: str) -> Iterator[None]:
        """Say in a sentence what a store's client raises, but for a file that is not there."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # each client has exceptions of its own
            raise StoreNotReached(
                f"{self.root}/{path} cannot be reached ({type(error).__name__}): mend the connection or the "
                "credentials, and do it again. What is live stays"
            ) from error


def describe(store: Store, path: str) -> str:
    """A path as a person can find it, for messages."""
    return f"{store.root}/{path}"


def read_json(store: Store, path: str) -> Any:
    """A JSON file. Raises FileNotFoundError, or ValueError that names the file."""
    import json

    data = store.read(path)
    try:
        return json.loads(data)
    except ValueError as error:
        raise ValueError(f"{describe(store, path)} is no valid JSON ({error})") from error

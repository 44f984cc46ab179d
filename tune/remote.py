"""A folder in a remote storage (``s3://bucket/runs``), through pyarrow as Ray reads and writes it.

Addresses may carry the file system's options behind a ``?``, e.g. ``?endpoint_override=minio:9000&scheme=http``.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pyarrow import ArrowException
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from smolvla_core.errors import ConfigError, first_line

_AT_ONCE = 16
"""Files that are copied at once: each is small, and waits for the network."""
_WITH_FOLDERS = ("local", "hdfs")
"""File systems in which a file needs a folder; in the others a folder is a part of its files' names."""
_FAILURES = (OSError, ArrowException, ValueError)


def join(address: str, *parts: str) -> str:
    """An address below another; options stay at its end."""
    head, question, options = address.partition("?")
    return "/".join([head.rstrip("/"), *parts]) + question + options


def name_of(address: str) -> str:
    """The last part of an address."""
    return address.partition("?")[0].rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Folder:
    """A folder in a remote storage.

    Attributes:
        address: of the folder.
        filesystem: that holds it.
        path: of the folder in it.
    """

    address: str
    filesystem: Any
    path: str

    @classmethod
    def at(cls, address: str, asked_by: str = "storage") -> Self:
        """The folder of an address; nothing is read or made yet.

        Raises:
            ConfigError: no file system has such an address, or it cannot be reached.
        """
        try:
            filesystem, path = FileSystem.from_uri(address)
        except _FAILURES as error:
            raise ConfigError(
                f"{asked_by}: {address} cannot be opened ({_line(error)}); give s3://bucket/folder, or a path that "
                "every machine sees"
            ) from None
        return cls(address, filesystem, path.rstrip("/"))

    def check_writable(self) -> None:
        """Write a file and delete it.

        Raises:
            ConfigError: that fails.
        """
        try:
            name = f".writable-{uuid.uuid4().hex}"  # several machines may try at once
            self.write(name, b"")
            self.delete(name)
        except _FAILURES as error:
            raise ConfigError(
                f"storage: {self.address} cannot be written ({_line(error)}); check the bucket's name, the credentials "
                "(AWS_ACCESS_KEY_ID or the machine's role) and AWS_ENDPOINT_URL"
            ) from None

    def files(self, but: Iterable[str] = ()) -> dict[str, Any]:
        """Path below the folder -> what the storage says of the file, without those in the folders ``but``."""
        left_out = frozenset(but)
        found: dict[str, Any] = {}
        for entry in self._entries(self.path):
            name = entry.path[len(self.path) + 1 :]
            if entry.type == FileType.File:
                found[name] = entry
            elif name not in left_out:
                found |= {
                    below.path[len(self.path) + 1 :]: below
                    for below in self._entries(entry.path, recursive=True)
                    if below.type == FileType.File
                }
        return found

    def folders(self) -> list[str]:
        """Names of the folders in it."""
        return [entry.base_name for entry in self._entries(self.path) if entry.type == FileType.Directory]

    def has(self, name: str) -> bool:
        """Whether there is a file or a folder of this name."""
        return self.filesystem.get_file_info(self._path(name)).type != FileType.NotFound

    def modified(self, name: str) -> float:
        """When a file was written, in seconds since the epoch by the storage's clock."""
        return float(self.filesystem.get_file_info(self._path(name)).mtime.timestamp())

    def read(self, name: str) -> bytes:
        """A file's contents.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self.filesystem.open_input_stream(self._path(name)) as file:
            return bytes(file.read())

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        self._make_parent(name)
        with self.filesystem.open_output_stream(self._path(name)) as file:
            file.write(content)

    def upload(self, files: Mapping[str, Path], done: Callable[[str], None]) -> None:
        """Copy local files to it, each to the path below it that is its key; ``done`` is told of each that is there.

        Raises:
            OSError: one could not be copied; others may have been.
        """
        if not files:
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            copies = {pool.submit(self._send, name, file): name for name, file in files.items()}
            for copy in as_completed(copies):
                copy.result()
                done(copies[copy])

    def _send(self, name: str, file: Path) -> None:
        self._make_parent(name)
        try:
            copy_files(str(file), self._path(name), LocalFileSystem(), self.filesystem)
        except FileNotFoundError:
            if file.exists():  # else it was deleted since it was listed
                raise

    def download(self, names: Iterable[str], into: Path) -> None:
        """Copy files of it to a local folder."""
        wanted = list(names)
        for folder in {(into / name).parent for name in wanted}:
            folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: self._fetch(name, into / name), wanted))

    def delete(self, name: str) -> None:
        """Delete a file; nothing to do where there is none."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(self._path(name))

    def _fetch(self, name: str, file: Path) -> None:
        copy_files(self._path(name), str(file), self.filesystem, LocalFileSystem())

    def _make_parent(self, name: str) -> None:
        if self.filesystem.type_name in _WITH_FOLDERS:
            self.filesystem.create_dir(self._path(name).rpartition("/")[0], recursive=True)

    def _entries(self, path: str, recursive: bool = False) -> list[Any]:
        return list(self.filesystem.get_file_info(FileSelector(path, recursive=recursive, allow_not_found=True)))

    def _path(self, name: str) -> str:
        return f"{self.path}/{name}"


def _line(error: BaseException) -> str:
    """The first line of what a library says; its details name the request, not the mistake."""
    return first_line(error).partition("; Details:")[0]

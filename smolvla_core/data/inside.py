"""Paths that a dataset's own files name stay inside its folder: whoever made it is not trusted with ours."""

import json
import re
from pathlib import Path, PurePosixPath
from string import Formatter

from smolvla_core.errors import DataError

INFO_FILE = "meta/info.json"
EXAMPLE = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
PICTURES_NEED = frozenset({"episode_index", "video_key"})
"""Placeholders without which ``video_path`` would give two cameras the same file."""
NUMBERS = frozenset({"episode_chunk", "episode_index"})
"""Placeholders of v2.1's paths that stand for numbers."""
NUMBERS_V3 = frozenset({"chunk_index", "file_index"})
_FORMAT = re.compile(r"(0?\d{1,2}d)?")
_KEY = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*")


def check_template(
    name: str,
    template: object,
    needs: frozenset[str] = frozenset({"episode_index"}),
    numbers: frozenset[str] = NUMBERS,
) -> str:
    """A path template of ``info.json``, refused unless it stays inside the dataset.

    Args:
        name: its key in ``info.json``.
        template: its value.
        needs: placeholders without which several files would share a path.
        numbers: placeholders that it may have, beside ``video_key``.

    Raises:
        DataError: not a string, absolute, climbing with '..', or with an unknown or missing placeholder.
    """
    if not isinstance(template, str) or not template:
        raise DataError(f"{INFO_FILE}: {name} is {template!r}; it must be a path like '{EXAMPLE}'")
    try:
        pieces = [piece for piece in Formatter().parse(template) if piece[1] is not None]
    except ValueError:
        raise DataError(f"{INFO_FILE}: {name} is {template!r}; its braces do not match") from None
    for _, field, spec, conversion in pieces:
        form = _FORMAT if field in numbers else re.compile("")
        if field not in numbers | {"video_key"} or conversion or not form.fullmatch(spec or ""):
            known = ", ".join(sorted(numbers | {"video_key"}))
            raise DataError(f"{INFO_FILE}: {name} has the placeholder '{field}:{spec}'; it may use {known}")
    missing = sorted(needs - {str(field) for _, field, _, _ in pieces})
    if missing:
        raise DataError(f"{INFO_FILE}: {name} is {template!r}; it must contain {{{missing[0]}}}")
    if template.startswith(("/", "\\", "~")) or ".." in PurePosixPath(template.replace("\\", "/")).parts:
        raise DataError(f"{INFO_FILE}: {name} is {template!r}; a path must stay inside the dataset's folder")
    return template


def check_video_key(key: str) -> str:
    """A feature's key that becomes a folder's name, refused unless it is a plain name.

    Raises:
        DataError: a separator, '..', or another odd character in it.
    """
    if not _KEY.fullmatch(key):
        raise DataError(f"{INFO_FILE}: the video key {key!r} is no plain name; use letters, digits, '_', '-', '.'")
    return key


def inside(root: Path, name: object) -> Path:
    """A file of a dataset, by the path that the dataset gives it.

    Raises:
        ValueError: it is no path, absolute, or climbs with '..'.
    """
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is no path")
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or name.startswith("~"):
        raise ValueError(f"{name!r} leaves the dataset")
    return root / path


def refuse_paths_that_leave(root: Path) -> None:
    """Refuse an ``info.json`` whose templates or cameras would make files be read outside the dataset.

    Symbolic links are followed: they are how the hub's cache stores a dataset.

    Raises:
        DataError: one does.
    """
    try:
        info = json.loads((root / INFO_FILE).read_text(encoding="utf-8"))
        numbers = NUMBERS if str(info.get("codebase_version")) == "v2.1" else NUMBERS_V3
        features = dict(info.get("features") or {})
    except (OSError, ValueError, AttributeError, TypeError):
        return  # what is no metadata at all is refused by who reads it
    for name in ("data_path", "video_path"):
        if info.get(name) is not None:
            try:
                check_template(name, info[name], frozenset(), numbers)
            except DataError as error:
                raise DataError(f"{root}/{error}; fetch the dataset again from where you trust it") from None
    for key in features:
        if PurePosixPath(key.replace("\\", "/")).parts != (key,) or key == "..":
            raise DataError(
                f"{root}/{INFO_FILE}: the feature {key!r} names a path; a feature is named by letters, digits, "
                "'_', '-' and '.', rename it"
            )

"""A downloaded folder of the 2025 challenge's demonstrations, read and never written to."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smolvla_core.config import suggest
from smolvla_core.data import behavior_layout as layout
from smolvla_core.errors import DataError


@dataclass(frozen=True)
class Keep:
    """What is taken over besides RGB pictures, state and action."""

    depth: bool = False
    seg: bool = False
    privileged: bool = False


@dataclass(frozen=True)
class Source:
    """A download's metadata, checked."""

    root: Path
    info: Mapping[str, Any]
    task: int
    task_name: str
    instruction: str
    video_keys: tuple[str, ...]
    columns: tuple[str, ...]
    """Vector columns to take over, of a fixed width each."""
    listed: Mapping[int, int]
    """Length of each of the task's episodes by ``episodes.jsonl``, by original number."""

    @property
    def fps(self) -> int:
        """Frames per second."""
        return int(self.info["fps"])

    def data_file(self, number: int) -> Path:
        """Parquet file of an episode."""
        return self._file("data_path", number)

    def video_file(self, number: int, key: str) -> Path:
        """Video of an episode's camera."""
        return self._file("video_path", number, key)

    def annotation_file(self, number: int) -> Path:
        """Annotation of an episode; it may not exist."""
        return self._file("annotation_path", number)

    def missing_files(self, number: int) -> list[Path]:
        """Files of an episode that are not on disk."""
        files = [self.data_file(number), *(self.video_file(number, key) for key in self.video_keys)]
        return [file for file in files if not file.is_file()]

    def _file(self, template: str, number: int, key: str = "") -> Path:
        return layout.episode_file(self.root, self.info[template], number, int(self.info["chunks_size"]), key)


@dataclass(frozen=True)
class Selection:
    """Which episodes an import takes, by original number, and which it cannot."""

    numbers: tuple[int, ...]
    lengths: tuple[int, ...]
    """Frames of each, from its parquet file's footer."""
    incomplete: Mapping[int, Path]
    """Episodes of which only some files are on disk, each with the first that is missing."""
    not_on_disk: int
    """Listed episodes of which nothing is on disk."""


def open_source(root: Path, task: int | str, keep: Keep) -> Source:
    """Read a download's metadata.

    Args:
        root: the folder that holds ``meta/info.json``.
        task: number or name of a task.
        keep: what else is taken over.

    Raises:
        DataError: missing or damaged metadata, another layout, or an unknown task.
    """
    info = _read_info(root)
    fps = info.get("fps")
    if not isinstance(fps, int | float) or fps <= 0 or fps != int(fps):
        raise DataError(f"{root / layout.INFO_FILE}: fps is {fps!r}; it must be a whole number above 0")
    size = info.get("chunks_size")
    if not isinstance(size, int) or size <= 0:
        raise DataError(f"{root / layout.INFO_FILE}: chunks_size is {size!r}; it must be a whole number above 0")
    defaults = {"annotation_path": layout.ANNOTATION_PATH}
    for name in ("data_path", "video_path", "annotation_path"):
        info[name] = layout.check_template(name, info.get(name, defaults.get(name)))
    number, name, instruction = _find_task(root, task)
    listed = {
        int(row["episode_index"]): int(row["length"])
        for row in _read_jsonl(root / layout.EPISODES_FILE, ("episode_index", "length"))
        if int(row["episode_index"]) // size == number
    }
    columns = (layout.STATE, layout.ACTION) + (layout.PRIVILEGED if keep.privileged else ())
    _check_widths(root, info, columns)
    return Source(root, info, number, name, instruction, _video_keys(root, info, keep), columns, listed)


def select_episodes(source: Source, limit: int | None, exclude: frozenset[int], skip_incomplete: bool) -> Selection:
    """The task's episodes that are on disk, in the order of their numbers.

    Args:
        source: a download.
        limit: the most episodes to take.
        exclude: original numbers to leave out.
        skip_incomplete: leave incomplete episodes out, rather than refuse them.

    Raises:
        DataError: nothing on disk, an incomplete episode, or a damaged parquet file.
    """
    unknown = sorted(exclude - set(source.listed))
    if unknown:
        raise DataError(
            f"--exclude: task {source.task} has no episode {unknown[0]}; "
            f"its episodes are {min(source.listed, default=0)} to {max(source.listed, default=0)}"
        )
    numbers: list[int] = []
    incomplete: dict[int, Path] = {}
    absent = 0
    wanted = 1 + len(source.video_keys)
    for number in sorted(set(source.listed) - exclude):
        missing = source.missing_files(number)
        if len(missing) == wanted:
            absent += 1
        elif missing:
            incomplete[number] = missing[0]
        elif limit is None or len(numbers) < limit:
            numbers.append(number)
    if not numbers and not incomplete:
        raise DataError(
            f"{source.root}: no episode of task {source.task} ({source.task_name}) is on disk; {_on_disk(source)}"
        )
    if incomplete and not skip_incomplete:
        number, file = next(iter(incomplete.items()))
        raise DataError(
            f"{file}: missing, so episode {number} is incomplete ({len(incomplete)} such); "
            "download it, or leave such episodes out with --skip-incomplete"
        )
    if not numbers:
        raise DataError(f"{source.root}: no episode of task {source.task} is complete; download the missing files")
    lengths = tuple(rows_in(source.data_file(number)) for number in numbers)
    return Selection(tuple(numbers), lengths, incomplete, absent)


def rows_in(path: Path) -> int:
    """Rows of a parquet file.

    Raises:
        DataError: damaged, or empty.
    """
    try:
        rows = pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        raise DataError(f"{path}: damaged or cut off; download it again") from None
    if rows == 0:
        raise DataError(f"{path}: has no frames; download it again, or leave the episode out with --exclude")
    return int(rows)


def _read_info(root: Path) -> dict[str, Any]:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that holds {layout.INFO_FILE}")
    path = root / layout.INFO_FILE
    if not path.is_file():
        raise DataError(f"{path}: missing; download the meta folder too, and give the folder that holds it")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); download it again") from None
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise DataError(f"{path}: has no 'features'; download it again")
    version = str(info.get("codebase_version"))
    if version.startswith("v3"):
        raise DataError(f"{root}: is LeRobot {version} already and needs no import; use the folder as it is")
    if version != "v2.1":
        raise DataError(f"{path}: codebase_version is {version}; only the 2025 release (v2.1) is imported")
    return info


def _find_task(root: Path, task: int | str) -> tuple[int, str, str]:
    rows = list(_read_jsonl(root / layout.TASKS_FILE, ("task_index",)))
    by_number = {int(row["task_index"]): row for row in rows}
    by_name = {str(row.get("task_name", row.get("task"))): row for row in rows}
    if isinstance(task, str) and not task.isdecimal():
        row = by_name.get(task)
        if row is None:
            raise DataError(f"--task: {root} has no task '{task}'{suggest(task, by_name)}")
    else:
        row = by_number.get(int(task))
        if row is None:
            nearest = min(by_number, key=lambda number: abs(number - int(task)), default=None)
            if nearest is None:
                raise DataError(f"{root / layout.TASKS_FILE}: lists no tasks; download it again")
            name = by_number[nearest].get("task_name", "")
            raise DataError(f"--task: {root} has no task {task}; the nearest is {nearest} ({name})")
    name = str(row.get("task_name", row.get("task")))
    return int(row["task_index"]), name, str(row.get("task", name))


def _read_jsonl(path: Path, needed: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"{path}: missing; download the meta folder too")
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                for key in needed:
                    int(row[key])
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{path}: line {number} is damaged; download the file again") from None
            yield row


def _check_widths(root: Path, info: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    widths = {layout.STATE: layout.STATE_WIDTH, layout.ACTION: layout.ACTION_WIDTH}
    for key in columns:
        feature = info["features"].get(key)
        if feature is None:
            raise DataError(f"{root / layout.INFO_FILE}: declares no '{key}'; is it BEHAVIOR's 2025 release?")
        declared = (feature.get("shape") or [None])[0]
        if key in widths and declared != widths[key]:
            raise DataError(
                f"{root / layout.INFO_FILE}: '{key}' has {declared} dims; the 2025 release has {widths[key]}"
            )


def _video_keys(root: Path, info: Mapping[str, Any], keep: Keep) -> tuple[str, ...]:
    modalities = ["rgb", *(["depth"] if keep.depth else []), *(["seg_instance_id"] if keep.seg else [])]
    declared = [layout.check_video_key(key) for key, f in info["features"].items() if f.get("dtype") == "video"]
    keys = []
    for modality in modalities:
        found = [key for key in declared if key.startswith(f"observation.images.{modality}.")]
        if not found:
            raise DataError(f"{root / layout.INFO_FILE}: declares no {modality} camera; is it BEHAVIOR's release?")
        keys += found
    return tuple(keys)


def _on_disk(source: Source) -> str:
    folder = source.data_file(0).parent.parent
    found = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return f"{folder} holds {', '.join(found)}" if found else f"{folder} is empty; download the task's folders"

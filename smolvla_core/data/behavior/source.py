"""A downloaded folder of the 2025 challenge's demonstrations, read and never written to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvla_core.data.behavior import layout
from smolvla_core.data.behavior.info import Task, read_info, read_lengths, read_task, width_of
from smolvla_core.data.inside import INFO_FILE, check_video_key
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
    task: Task
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

    def files(self, number: int) -> list[Path]:
        """Everything that an episode needs: its parquet file and its videos."""
        return [self.data_file(number), *(self.video_file(number, key) for key in self.video_keys)]

    def _file(self, template: str, number: int, key: str = "") -> Path:
        return layout.episode_file(self.root, self.info[template], number, int(self.info["chunks_size"]), key)


@dataclass(frozen=True)
class Selection:
    """Which episodes an import takes, by original number, and which it cannot."""

    numbers: tuple[int, ...]
    incomplete: Mapping[int, Path]
    """Episodes of which only some files are on disk, each with the first that is missing."""
    not_on_disk: int
    """Listed episodes of which nothing is on disk."""
    unlisted: tuple[Path, ...]
    """Parquet files beside the task's that ``episodes.jsonl`` does not list."""


def open_source(root: Path, task: int | str, keep: Keep) -> Source:
    """Read a download's metadata.

    Args:
        root: the folder that holds ``meta/info.json``.
        task: number or name of a task.
        keep: what else is taken over.

    Raises:
        DataError: missing or damaged metadata, another layout, or an unknown task.
    """
    info = read_info(root)
    found = read_task(root, task)
    listed = read_lengths(root, found.number, info["chunks_size"])
    columns = (layout.STATE, layout.ACTION) + (layout.PRIVILEGED if keep.privileged else ())
    _check_widths(root, info, columns)
    return Source(root, info, found, _video_keys(root, info, keep), columns, listed)


def select_episodes(source: Source, limit: int | None, exclude: frozenset[int], skip_incomplete: bool) -> Selection:
    """The task's episodes that are on disk, in the order of their numbers.

    Args:
        source: a download.
        limit: the most episodes to take.
        exclude: original numbers to leave out.
        skip_incomplete: leave incomplete episodes out, rather than refuse them.

    Raises:
        DataError: nothing on disk, or an incomplete episode.
    """
    unknown = sorted(exclude - set(source.listed))
    if unknown:
        raise DataError(
            f"--exclude: task {source.task.number} has no episode {unknown[0]}; "
            f"its episodes are {min(source.listed, default=0)} to {max(source.listed, default=0)}"
        )
    numbers: list[int] = []
    incomplete: dict[int, Path] = {}
    absent = 0
    for number in sorted(set(source.listed) - exclude):
        files = source.files(number)
        missing = [file for file in files if not file.is_file()]
        if len(missing) == len(files):
            absent += 1
        elif missing:
            incomplete[number] = missing[0]
        elif limit is None or len(numbers) < limit:
            numbers.append(number)
    name = f"task {source.task.number} ({source.task.name})"
    if not numbers and not incomplete:
        raise DataError(f"{source.root}: no episode of {name} is on disk; {_on_disk(source)}")
    if incomplete and not skip_incomplete:
        number, file = next(iter(incomplete.items()))
        raise DataError(
            f"{file}: missing, so episode {number} is incomplete ({len(incomplete)} such); "
            "download it, or leave such episodes out with --skip-incomplete"
        )
    if not numbers:
        raise DataError(f"{source.root}: no episode of {name} is complete; download the missing files")
    return Selection(tuple(numbers), incomplete, absent, _unlisted(source))


def _unlisted(source: Source) -> tuple[Path, ...]:
    """Files of the task's own folder only: where all tasks share one, others' files are expected."""
    own = {source.data_file(number) for number in source.listed}
    folders = {path.parent for path in own}
    shared = {path.parent for path in map(source.data_file, _other_numbers(source))}
    return tuple(path for folder in folders - shared for path in sorted(folder.glob("*.parquet")) if path not in own)


def _other_numbers(source: Source) -> tuple[int, int]:
    size = int(source.info["chunks_size"])
    return (source.task.number - 1) * size, (source.task.number + 1) * size


def _check_widths(root: Path, info: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    widths = {layout.STATE: layout.STATE_WIDTH, layout.ACTION: layout.ACTION_WIDTH}
    for key in columns:
        feature = info["features"].get(key)
        if feature is None:
            raise DataError(f"{root / INFO_FILE}: declares no '{key}'; is it BEHAVIOR's 2025 release?")
        declared = width_of(feature)
        if key in widths and declared != widths[key]:
            raise DataError(
                f"{root / INFO_FILE}: '{key}' has {declared} dims, BEHAVIOR's 2025 release {widths[key]}; "
                "other LeRobot datasets need no import, use the folder as it is"
            )


def _video_keys(root: Path, info: Mapping[str, Any], keep: Keep) -> tuple[str, ...]:
    modalities = ["rgb", *(["depth"] if keep.depth else []), *(["seg_instance_id"] if keep.seg else [])]
    declared = [check_video_key(key) for key, f in info["features"].items() if f.get("dtype") == "video"]
    keys = []
    for modality in modalities:
        found = [key for key in declared if key.startswith(f"observation.images.{modality}.")]
        if not found:
            raise DataError(f"{root / INFO_FILE}: declares no {modality} camera; is it BEHAVIOR's release?")
        keys += found
    return tuple(keys)


def _on_disk(source: Source) -> str:
    folder = source.data_file(0).parent.parent
    found = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return f"{folder} holds {', '.join(found)}" if found else f"{folder} is empty; download the task's folders"

"""Reading any LeRobot dataset for an audit: v3.0, v2.1 and BEHAVIOR's raw layout, without lerobot.

N frames, E episodes, R state dims, A action dims. Nothing is converted and nothing is refused that
a check could report.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smolvla_core.data.behavior_layout import ACTION, INFO_FILE, STATE, check_template, check_video_key
from smolvla_core.errors import DataError

Table = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """Where one episode's pictures of one camera are."""

    path: Path
    start_s: float


@dataclass(frozen=True)
class Recording:
    """A dataset's numbers, rows in episode order, and where its videos are."""

    root: Path
    version: str
    robot_type: str | None
    fps: float
    state: Table
    """(N, R)."""
    action: Table
    """(N, A)."""
    seconds: NDArray[np.float64]
    """(N,) time stamps as stored."""
    clock_step_s: float
    """Rounding of the stored time stamps' type at the longest episode's end."""
    episode: NDArray[np.int64]
    """(N,) the dataset's own episode numbers."""
    starts: NDArray[np.int64]
    """(E,) first rows."""
    lengths: NDArray[np.int64]
    """(E,)."""
    instructions: tuple[str, ...]
    """(E,)."""
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    clips: Mapping[str, tuple[Clip, ...]]
    """Of each camera stored as video, (E,) clips."""
    sizes: Mapping[str, tuple[int, int]]
    """Declared (height, width) of each camera stored as video."""
    image_keys: tuple[str, ...]
    """Cameras stored as single images inside the parquet files."""

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(E,) the dataset's own number of each episode."""
        return self.episode[self.starts]


def read_recording(root: Path) -> Recording:
    """Read a dataset.

    Raises:
        DataError: no dataset there, an unknown version, or a file that cannot be read.
    """
    path = root / INFO_FILE
    if not path.is_file():
        raise DataError(f"{path}: missing; give the folder that holds {INFO_FILE}")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); download it again") from None
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise DataError(f"{path}: has no 'features'; is it a LeRobot dataset?")
    version = str(info.get("codebase_version"))
    if not version.startswith(("v2.1", "v3.")):
        raise DataError(f"{path}: codebase_version is {version}; v2.1 and v3.0 can be read")
    for key in (STATE, ACTION):
        if key not in info["features"]:
            raise DataError(f"{path}: declares no '{key}'; it has {', '.join(sorted(info['features']))}")
    try:
        return _assemble(root, info, version)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{root / 'meta'}: damaged ({type(error).__name__}: {error}); download it again") from None


def _assemble(root: Path, info: Mapping[str, Any], version: str) -> Recording:
    features = info["features"]
    table = _read_tables(sorted((root / "data").rglob("*.parquet")), root)
    order = np.argsort(table["episode_index"].to_numpy(), kind="stable")
    table = table.take(pa.array(order))
    episode = table["episode_index"].to_numpy().astype(np.int64)
    starts = np.flatnonzero(np.diff(episode, prepend=episode[0] - 1))
    lengths = np.diff(starts, append=len(episode))
    numbers = episode[starts]
    videos = [check_video_key(key) for key, feature in features.items() if feature.get("dtype") == "video"]
    if version.startswith("v3"):
        rows = _episode_rows(root, numbers)
        clips = {key: tuple(_clip_v3(root, info, key, row) for row in rows) for key in videos}
        instructions = tuple(_joined(row.get("tasks", [])) for row in rows)
    else:
        clips = _clips_v21(root, info, videos, numbers)
        instructions = _instructions_v21(root, numbers)
    stamps = table["timestamp"].to_numpy()
    longest = float(np.nanmax(np.abs(stamps))) if len(stamps) else 0.0
    sizes = {key: (int(features[key]["shape"][0]), int(features[key]["shape"][1])) for key in videos}
    return Recording(
        root=root,
        version=version,
        robot_type=info.get("robot_type"),
        fps=float(info["fps"]),
        state=_matrix(table[STATE], STATE, root),
        action=_matrix(table[ACTION], ACTION, root),
        seconds=stamps.astype(np.float64),
        clock_step_s=float(np.spacing(stamps.dtype.type(longest))),
        episode=episode,
        starts=starts,
        lengths=lengths,
        instructions=instructions,
        state_names=_names(features[STATE]),
        action_names=_names(features[ACTION]),
        clips=clips,
        sizes=sizes,
        image_keys=tuple(key for key, feature in features.items() if feature.get("dtype") == "image"),
    )


def _read_tables(files: Sequence[Path], root: Path) -> pa.Table:
    if not files:
        raise DataError(f"{root / 'data'}: holds no parquet file; download the data folder too")
    tables = []
    for file in files:
        try:
            table = pq.read_table(file, columns=[STATE, ACTION, "timestamp", "episode_index"])
        except (OSError, pa.ArrowException, KeyError):
            raise DataError(f"{file}: damaged or cut off; download it again") from None
        if table.num_columns != 4:
            raise DataError(f"{file}: lacks one of {STATE}, {ACTION}, timestamp, episode_index; download it again")
        lists = {key: pa.list_(pa.float32()) for key in (STATE, ACTION)}
        tables.append(table.cast(pa.schema([(f.name, lists.get(f.name, f.type)) for f in table.schema])))
    table = pa.concat_tables(tables).combine_chunks()
    if len(table) == 0:
        raise DataError(f"{root / 'data'}: holds no frames; record some first")
    return table


def _matrix(column: pa.ChunkedArray, key: str, root: Path) -> Table:
    lists = column.combine_chunks()
    widths = np.unique(lists.value_lengths().to_numpy(zero_copy_only=False))
    if lists.null_count or len(widths) != 1 or widths[0] < 1:
        raise DataError(f"{root}: '{key}' does not have the same width in every row; repair the dataset first")
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(-1, int(widths[0]))


def _names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a vector's dims, where the dataset has one for each."""
    names = feature.get("names")
    if isinstance(names, Mapping):
        names = next(iter(names.values()), None)
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    if isinstance(names, list) and len(names) == feature["shape"][0]:
        return tuple(str(name) for name in names)
    return ()


def _episode_rows(root: Path, numbers: NDArray[np.int64]) -> list[dict[str, Any]]:
    files = sorted((root / "meta" / "episodes").rglob("*.parquet"))
    if not files:
        raise DataError(f"{root / 'meta/episodes'}: missing; download the meta folder too")
    try:
        frame = pd.concat([pd.read_parquet(file, columns=_light_columns(file)) for file in files])
    except (OSError, pa.ArrowException):
        raise DataError(f"{root / 'meta/episodes'}: damaged; download it again") from None
    rows = {int(row["episode_index"]): row for row in frame.to_dict("records")}
    absent = [int(number) for number in numbers if int(number) not in rows]
    if absent:
        raise DataError(f"{root / 'meta/episodes'}: does not list episode {absent[0]}; download it again")
    return [rows[int(number)] for number in numbers]


def _light_columns(file: Path) -> list[str]:
    return [name for name in pq.read_schema(file).names if not name.startswith("stats/")]


def _clip_v3(root: Path, info: Mapping[str, Any], key: str, row: Mapping[str, Any]) -> Clip:
    place = {name: int(row[f"videos/{key}/{name}"]) for name in ("chunk_index", "file_index")}
    path = Path(str(info["video_path"]).format(video_key=key, **place))
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{INFO_FILE}: video_path is {info['video_path']!r}; it must stay inside the dataset")
    return Clip(root / path, float(row[f"videos/{key}/from_timestamp"]))


def _clips_v21(
    root: Path, info: Mapping[str, Any], keys: Sequence[str], numbers: NDArray[np.int64]
) -> dict[str, tuple[Clip, ...]]:
    if not keys:
        return {}
    template = check_template("video_path", info.get("video_path"))
    size = int(info.get("chunks_size") or 1000)
    clips = {}
    for key in keys:
        names = [template.format(episode_chunk=int(n) // size, episode_index=int(n), video_key=key) for n in numbers]
        found = tuple(Clip(root / name, 0.0) for name in names)
        # A partial download leaves whole cameras out (depth, segmentation); they are not missing files.
        if any(clip.path.parent.is_dir() for clip in found):
            clips[key] = found
    return clips


def _instructions_v21(root: Path, numbers: NDArray[np.int64]) -> tuple[str, ...]:
    wanted = set(numbers.tolist())
    found = {}
    path = root / "meta" / "episodes.jsonl"
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            match = re.search(r'"episode_index":\s*(\d+)', line)
            if match and int(match.group(1)) in wanted:
                found[int(match.group(1))] = _joined(json.loads(line).get("tasks", []))
    return tuple(found.get(int(number), "") for number in numbers)


def _joined(tasks: Any) -> str:
    return "; ".join(str(task) for task in tasks)

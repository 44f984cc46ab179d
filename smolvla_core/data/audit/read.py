"""Reading any LeRobot dataset for an audit: v3.0, v2.1 and BEHAVIOR's raw layout, without lerobot.

N frames, E episodes, R state dims, A action dims. Nothing is converted and nothing is refused that
a check could report.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smolvla_core.data.audit.layout import EpisodeFiles, files_of
from smolvla_core.data.behavior.layout import ACTION, MOST_FPS, STATE
from smolvla_core.data.inside import INFO_FILE
from smolvla_core.data.wording import unreadable
from smolvla_core.errors import DataError

Table = NDArray[np.float32]

TIMESTAMP = "timestamp"
EPISODE = "episode_index"


@dataclass(frozen=True)
class Recording:
    """A dataset's numbers, rows in episode order, and where its other files are."""

    root: Path
    version: str
    robot_type: str | None
    fps: float
    state: Table
    """(N, R)."""
    action: Table
    """(N, A)."""
    seconds: NDArray[np.float64] | None
    """(N,) time stamps as stored; None where none are."""
    clock_step_s: float
    """Rounding of the stored time stamps' type at the longest episode's end."""
    episode: NDArray[np.int64]
    """(N,) the dataset's own episode numbers."""
    starts: NDArray[np.int64]
    """(E,) first rows."""
    lengths: NDArray[np.int64]
    """(E,)."""
    state_names: tuple[str, ...]
    """(R,) or empty."""
    action_names: tuple[str, ...]
    """(A,) or empty."""
    files: EpisodeFiles
    """Videos, instructions and what the metadata promises."""

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(E,) the dataset's own number of each episode."""
        return self.episode[self.starts]

    def parts(self) -> list[slice]:
        """Rows of each episode."""
        return [slice(a, a + n) for a, n in zip(self.starts.tolist(), self.lengths.tolist(), strict=True)]

    def where(self, row: int) -> str:
        """A row in words."""
        at = int(np.searchsorted(self.starts, row, side="right") - 1)
        return f"episode {self.episode[row]}, frame {row - self.starts[at]}"


def read_recording(root: Path) -> Recording:
    """Read a dataset.

    Raises:
        DataError: no dataset there, an unknown version, or a file that cannot be read.
    """
    path = root / INFO_FILE
    info = _read_info(path)
    try:
        return _assemble(root, info)
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{root / 'meta'}: damaged, it lacks {error}; download it again") from None
    except (TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{root / 'meta'}: damaged ({type(error).__name__}: {error}); download it again") from None


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: missing; give the folder that holds {INFO_FILE}") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not valid JSON; download it again") from None
    features = info.get("features") if isinstance(info, dict) else None
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise DataError(f"{path}: has no 'features'; is it a LeRobot dataset?")
    version = str(info.get("codebase_version"))
    if not version.startswith(("v2.1", "v3.")):
        raise DataError(f"{path}: codebase_version is {version}; v2.1 and v3.0 can be read")
    for key in (STATE, ACTION):
        if key not in features:
            raise DataError(f"{path}: declares no '{key}'; it has {', '.join(sorted(features))}")
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= MOST_FPS:
        raise DataError(f"{path}: fps is {repr(fps)[:40]}; it must be a number above 0, up to {MOST_FPS}")
    return dict(info)


def _assemble(root: Path, info: Mapping[str, Any]) -> Recording:
    columns = _read_columns(root)
    episode = columns[EPISODE].astype(np.int64)
    if np.any(np.diff(episode) < 0):
        order = np.argsort(episode, kind="stable")
        columns = {key: values[order] for key, values in columns.items()}
        episode = episode[order]
    starts = np.flatnonzero(np.diff(episode, prepend=episode[0] - 1))
    stamps = columns.get(TIMESTAMP)
    features = info["features"]
    robot = info.get("robot_type")
    return Recording(
        root=root,
        version=str(info["codebase_version"]),
        robot_type=None if robot is None else str(robot),
        fps=float(info["fps"]),
        state=columns[STATE],
        action=columns[ACTION],
        seconds=None if stamps is None else stamps.astype(np.float64),
        clock_step_s=0.0 if stamps is None else _rounding(stamps),
        episode=episode,
        starts=starts,
        lengths=np.diff(starts, append=len(episode)),
        state_names=_names(features[STATE]),
        action_names=_names(features[ACTION]),
        files=files_of(root, info, episode[starts].tolist()),
    )


def _rounding(stamps: NDArray[Any]) -> float:
    finite = np.abs(stamps[np.isfinite(stamps)])
    return float(np.spacing(finite.max(initial=0)))


def _read_columns(root: Path) -> dict[str, NDArray[Any]]:
    """State and action (N, D), episode numbers (N,), and time stamps (N,) where every file has them."""
    files = sorted((root / "data").rglob("*.parquet"))
    if not files:
        raise DataError(f"{root / 'data'}: holds no parquet file; download the data folder too")
    parts: dict[str, list[NDArray[Any]]] = {STATE: [], ACTION: [], EPISODE: [], TIMESTAMP: []}
    for file in files:
        table = _read_file(file)
        if len(table) == 0:
            continue
        for key in (STATE, ACTION):
            parts[key].append(_matrix(file, table[key], key))
        parts[EPISODE].append(_scalars(file, table[EPISODE], EPISODE))
        if TIMESTAMP in table.column_names:
            parts[TIMESTAMP].append(_scalars(file, table[TIMESTAMP], TIMESTAMP))
    if not parts[EPISODE]:
        raise DataError(f"{root / 'data'}: holds no frames; record some first")
    for key in (STATE, ACTION):
        widths = [part.shape[1] for part in parts[key]]
        if len(set(widths)) > 1:
            odd = next(i for i, width in enumerate(widths) if width != widths[0])
            raise DataError(
                f"{files[odd]}: '{key}' has {widths[odd]} dims, {files[0].name} has {widths[0]}; leave it out"
            )
    if not parts[TIMESTAMP]:
        del parts[TIMESTAMP]
    elif len(parts[TIMESTAMP]) != len(parts[EPISODE]):
        raise DataError(f"{root / 'data'}: some files have a column '{TIMESTAMP}' and some do not; download it again")
    return {key: np.concatenate(values) for key, values in parts.items()}


def _read_file(file: Path) -> pa.Table:
    try:
        present = pq.read_schema(file).names
        absent = [key for key in (STATE, ACTION, EPISODE) if key not in present]
        if absent:
            raise DataError(f"{file}: has no column '{absent[0]}'; download it again")
        optional = [TIMESTAMP] if TIMESTAMP in present else []
        return pq.read_table(file, columns=[STATE, ACTION, EPISODE, *optional], page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, error) from None


def _matrix(file: Path, column: pa.ChunkedArray, key: str) -> Table:
    """A column of lists as (n, D), or of numbers as (n, 1)."""
    values = column.combine_chunks()
    width = 1
    if values.null_count:
        raise DataError(f"{file}: '{key}' has {values.null_count} empty rows; repair or remove that episode")
    if pa.types.is_nested(column.type) and hasattr(values, "value_lengths"):
        widths = np.unique(np.asarray(values.value_lengths().to_numpy(zero_copy_only=False)))
        if len(widths) != 1 or widths[0] < 1:
            raise DataError(f"{file}: '{key}' does not have the same width in every row; repair the episode")
        width, values = int(widths[0]), values.flatten()
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise DataError(f"{file}: '{key}' holds {column.type}, not numbers; download it again")
    with np.errstate(over="ignore"):
        return np.asarray(values.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, width))


def _scalars(file: Path, column: pa.ChunkedArray, key: str) -> NDArray[Any]:
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise DataError(f"{file}: '{key}' holds {kind}, not numbers; download it again")
    if key == EPISODE and column.null_count:
        raise DataError(f"{file}: '{key}' has {column.null_count} empty rows; download it again")
    values = np.asarray(column.to_numpy())
    return values if np.issubdtype(values.dtype, np.floating) or key == EPISODE else values.astype(np.float64)


def _names(feature: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of a vector's dims, where the dataset has one for each."""
    names = feature.get("names")
    if isinstance(names, Mapping):
        names = next(iter(names.values()), None)
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    shape = feature.get("shape")
    if isinstance(names, list) and isinstance(shape, list) and [len(names)] == shape:
        return tuple(str(name) for name in names)
    return ()

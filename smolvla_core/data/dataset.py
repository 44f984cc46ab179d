"""Open a LeRobot dataset: columns in memory, episodes split, statistics of the training part.

Shapes: N frames of the dataset, E episodes, R raw state dims, A action dims, C cameras.
"""

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from numpy.typing import NDArray

from smolvla_core.config import DataConfig, DatasetSource
from smolvla_core.data.keys import ACTION, CAM_REL_POSES, SEGMENTATION, STATE, TASK_INFO, TIMESTAMP
from smolvla_core.data.reading import (
    boundaries,
    episodes_of,
    instructions_of,
    locate,
    matrix,
    privileged,
    read_columns,
    read_metadata,
    refuse_non_finite,
)
from smolvla_core.errors import DataError
from smolvla_core.r1pro import ACTION_WIDTH, BASE_VELOCITY
from smolvla_core.state import release_of

ROWS_AT_ONCE = 65_536
MIN_STD = 1e-6
"""A dim that varies less than this is constant: it is shifted but not scaled."""


@dataclass(frozen=True)
class Moments:
    """Mean, standard deviation and range of a vector feature, each of shape (D,), float64."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.float32]) -> "Moments":
        """Moments of ``rows`` (n, D); a constant dim's ``std`` is 1, so that it is only shifted."""
        mean = rows.mean(axis=0, dtype=np.float64)
        # in parts: a million frames in double precision would take gigabytes
        parts = (rows[start : start + ROWS_AT_ONCE] - mean for start in range(0, len(rows), ROWS_AT_ONCE))
        std = np.sqrt(sum(np.square(part).sum(axis=0) for part in parts) / len(rows))
        low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        return cls(mean, np.where(std < MIN_STD, 1.0, std), low, high)

    def take(self, dims: tuple[int, ...]) -> "Moments":
        """The moments of some dims."""
        picked = list(dims)
        return Moments(self.mean[picked], self.std[picked], self.min[picked], self.max[picked])


@dataclass(frozen=True)
class Split:
    """Episode numbers of the three parts, ascending and disjoint."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """A dataset's columns, and where its pictures are. Rows are in episode order."""

    meta: LeRobotDatasetMetadata
    root: Path
    state: NDArray[np.float32]
    """(N, R) raw proprioception."""
    action: NDArray[np.float32]
    """(N, A)."""
    timestamp: NDArray[np.float64]
    """(N,) seconds since the start of the episode."""
    episode: NDArray[np.int64]
    """(N,)."""
    frame: NDArray[np.int64]
    """(N,) frame number within the episode, derived from the rows' order."""
    starts: NDArray[np.int64]
    """(E,) first row of each episode."""
    lengths: NDArray[np.int64]
    """(E,) frames of each episode."""
    instructions: tuple[str, ...]
    """Each once, in alphabetical order."""
    instruction: NDArray[np.int64]
    """(N,) which of them a row has; it may change within an episode."""
    recorded: NDArray[np.int64]
    """(E,) the number of each episode in the dataset's files; another than its own where only one task is used."""
    task_info: NDArray[np.float32] | None = None
    """(N, Q) object poses; None unless the configuration says where in them something stands."""
    camera_poses: NDArray[np.float32] | None = None
    """(N, 7 C) positions and quaternions (x, y, z, w) in the robot's frame; None unless objects are named."""

    @property
    def fps(self) -> int:
        """Frames per second."""
        return int(self.meta.fps)

    @property
    def progress(self) -> NDArray[np.float32]:
        """(N,) frame number / episode length, in [0, 1)."""
        return (self.frame / self.lengths[self.episode]).astype(np.float32)

    @property
    def camera_keys(self) -> tuple[str, ...]:
        """RGB cameras of the dataset, in its own order: neither depth nor segmentation."""
        depth = set(self.meta.depth_keys)
        cameras = (key for key in self.meta.camera_keys if key not in depth)
        return tuple(key for key in cameras if SEGMENTATION not in key.split("."))

    @property
    def robot_type(self) -> str | None:
        """``robot_type`` of info.json."""
        return self.meta.robot_type

    @cached_property
    def digest(self) -> str:
        """Digest of its contents: metadata and actions by value, files of pictures by their sizes.

        Copies of a dataset have the same.
        """
        digest = hashlib.sha256(_metadata_digest(self).digest())
        videos = [key for key in self.camera_keys if key in self.meta.video_keys]
        files = {self.meta.get_data_file_path(episode) for episode in map(int, self.recorded)}
        files |= {self.meta.get_video_file_path(episode, key) for episode in map(int, self.recorded) for key in videos}
        for file in sorted(files):
            digest.update(f"{file.as_posix()} {(self.root / file).stat().st_size}".encode())
        return digest.hexdigest()

    def rows_of(self, episodes: tuple[int, ...]) -> NDArray[np.int64]:
        """Row numbers of some episodes, in order."""
        parts = [np.arange(self.starts[e], self.starts[e] + self.lengths[e]) for e in episodes]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    @property
    def averaged_dims(self) -> tuple[int, ...]:
        """Action dims that are velocities, so that one action in place of several is their mean."""
        known = release_of(self.state.shape[1], self.robot_type) and self.action.shape[1] == ACTION_WIDTH
        return BASE_VELOCITY if known else ()

    def chunk_rows(
        self, rows: NDArray[np.int64], steps: int, stride: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Every ``stride``-th row from each row on, and which of them lie past the episode's end.

        Returns:
            rows (B, T), the episode's last row repeated past its end; is_pad (B, T).
        """
        offsets = rows[:, None] + stride * np.arange(steps)[None, :]
        last = (self.starts + self.lengths - 1)[self.episode[rows]][:, None]
        return np.minimum(offsets, last), offsets > last

    def chunk_actions(self, rows: NDArray[np.int64], steps: int, stride: int = 1) -> NDArray[np.float32]:
        """The actions (B, T, A) from each row on, each of which stands for ``stride`` recorded ones.

        It is the first of them, the position to be at; of a velocity it is the mean over those within
        the episode, so that the robot gets as far. Past the episode's end its last action is repeated.
        """
        actions = self.action[self.chunk_rows(rows, steps, stride)[0]]
        averaged = list(self.averaged_dims)
        if stride > 1 and averaged:
            every, beyond = self.chunk_rows(rows, steps * stride)
            counted = np.where(beyond[:, :, None], 0.0, self.action[every][:, :, averaged])
            within = (~beyond).reshape(len(rows), steps, stride).sum(axis=2)
            mean = counted.reshape(len(rows), steps, stride, -1).sum(axis=2) / np.maximum(within, 1)[:, :, None]
            actions[:, :, averaged] = np.where(within[:, :, None] > 0, mean, actions[:, :, averaged])
        return actions


def open_dataset(config: DataConfig, number: int = 0) -> Dataset:
    """Open a dataset of a configuration, the main one by default, once per process.

    Raises:
        DataError: missing or damaged files, no state or action, a value that is not finite.
    """
    # trials that differ in how a dataset is used share what was read of it
    source = config.train[number]
    as_read = source.model_copy(update={"weight": 1.0, "cameras": None, "task_info": None})
    return _open(as_read, privileged(source), config.cache_dir)


@cache
def _open(source: DatasetSource, extra: tuple[str, ...], cache_dir: str | None) -> Dataset:
    root = locate(source, cache_dir)
    meta = read_metadata(source, root, extra)
    recorded = episodes_of(meta, source.task, root)
    table = read_columns(meta, root, recorded, extra)
    state, action = matrix(table, STATE, root), matrix(table, ACTION, root)
    episode = np.searchsorted(recorded, table["episode_index"].to_numpy()).astype(np.int64)
    starts, lengths = boundaries(table["episode_index"].to_numpy(), recorded, root)
    frame = np.arange(len(episode)) - starts[episode]
    # lerobot decodes pictures by the recorded time; where there is none, frames are equally spaced
    timed = TIMESTAMP in table.column_names
    timestamp = matrix(table, TIMESTAMP, root)[:, 0].astype(np.float64) if timed else frame / meta.fps
    refuse_non_finite(state, STATE, episode, frame, root)
    refuse_non_finite(action, ACTION, episode, frame, root)
    poses = {key: matrix(table, key, root) for key in extra}
    for key, values in poses.items():
        refuse_non_finite(values, key, episode, frame, root)
    instructions, instruction = instructions_of(meta, table["task_index"].to_numpy(), root)
    dataset = Dataset(
        meta=meta,
        root=root,
        state=state,
        action=action,
        timestamp=timestamp,
        episode=episode,
        frame=frame,
        starts=starts,
        lengths=lengths,
        instructions=instructions,
        instruction=instruction,
        recorded=recorded,
        task_info=poses.get(TASK_INFO),
        camera_poses=poses.get(CAM_REL_POSES),
    )
    _refuse_missing_videos(dataset)
    return dataset


def split_episodes(config: DataConfig, total: int) -> Split:
    """Split episodes at random under ``split_seed``; at least one for validation and training.

    Raises:
        DataError: too few episodes to hold any out.
    """
    order = np.random.default_rng(config.split_seed).permutation(total)
    n_val = max(1, round(config.val_fraction * total))
    n_test = max(1, round(config.test_fraction * total)) if config.test_fraction > 0 else 0
    if total - n_val - n_test < 1:
        wanted = ("training", "validation", "test") if n_test else ("training", "validation")
        way_out = "lower data.val_fraction or data.test_fraction"
        if total < len(wanted):
            way_out = "record more" + (", or set data.test_fraction to 0" if total == 2 else "")
        episodes = f"{total} episode{'' if total == 1 else 's'}"
        raise DataError(f"data: {episodes} cannot be split into {', '.join(wanted[:-1])} and {wanted[-1]}; {way_out}")
    parts = (order[n_val + n_test :], order[:n_val], order[n_val : n_val + n_test])
    train, val, test = (tuple(int(e) for e in np.sort(part)) for part in parts)
    return Split(train, val, test)


def fingerprint(config: DataConfig) -> dict[str, Any]:
    """What identifies the data of a run: name, folder, size, and a digest of its metadata.

    It is that of the main dataset; under ``others`` stand those that are trained beside it.
    """
    main, *others = (_identity(config, number) for number in range(len(config.train)))
    return {**main, "others": others} if others else main


def _identity(config: DataConfig, number: int) -> dict[str, Any]:
    dataset, source = open_dataset(config, number), config.train[number]
    return {
        "name": source.repo_id or Path(str(source.root)).name,
        "root": str(dataset.root),
        "episodes": len(dataset.lengths),
        "frames": len(dataset.frame),
        "fps": dataset.fps,
        "digest": _metadata_digest(dataset).hexdigest(),
    }


def _metadata_digest(dataset: Dataset) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for file in sorted((dataset.root / "meta").rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(dataset.root).as_posix().encode())
            digest.update(file.read_bytes())
    digest.update(dataset.action.tobytes())
    return digest


def _refuse_missing_videos(dataset: Dataset) -> None:
    meta = dataset.meta
    # metadata may declare depth streams that were not downloaded and are never looked at
    for key in (key for key in dataset.camera_keys if key in meta.video_keys):
        for path in sorted({meta.get_video_file_path(e, key) for e in map(int, dataset.recorded)}):
            if not (dataset.root / path).is_file():
                raise DataError(f"{dataset.root / path}: video of '{key}' is missing; fetch the dataset again")
        _refuse_short_videos(dataset, key)


def _refuse_short_videos(dataset: Dataset, key: str) -> None:
    """Beyond the end of its own pictures an episode would be given those of the next one in the file."""
    ends = f"videos/{key}/to_timestamp"
    if ends not in dataset.meta.episodes.column_names:
        return
    starts, ends_at = (
        np.asarray(dataset.meta.episodes[name], dtype=np.float64)[dataset.recorded]
        for name in (f"videos/{key}/from_timestamp", ends)
    )
    held = np.rint((ends_at - starts) * dataset.fps).astype(np.int64)
    short = np.flatnonzero(held < dataset.lengths)
    if len(short):
        episode = int(short[0])
        raise DataError(
            f"{dataset.root}: the video of '{key}' has {held[episode]} pictures for the {dataset.lengths[episode]} "
            f"frames of episode {dataset.recorded[episode]}; fetch it again, or leave that episode out of the dataset"
        )


def video_offsets(dataset: Dataset, key: str) -> tuple[list[Path], NDArray[np.float64]]:
    """File of each episode's video, and the second at which the episode starts in it.

    Returns:
        paths (E,), seconds (E,).
    """
    starts = np.asarray(dataset.meta.episodes[f"videos/{key}/from_timestamp"], dtype=np.float64)
    paths = [dataset.root / dataset.meta.get_video_file_path(int(e), key) for e in dataset.recorded]
    return paths, starts[dataset.recorded]

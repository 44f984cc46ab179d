"""Stretches of an episode in which a gripper moves, found from the raw state alone.

``python -m smolvla_core.segments CONFIG.yaml --out segments.html`` draws a few episodes to look at.
"""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smolvla_core.command import OK, Parser, answer, refuse_unwritable
from smolvla_core.config import SegmentConfig, TrialConfig
from smolvla_core.config_file import load_config
from smolvla_core.data.dataset import Dataset, open_dataset
from smolvla_core.data.legacy import cache_home
from smolvla_core.errors import ConfigError
from smolvla_core.r1pro import GRIPPER_KEYS
from smolvla_core.state import key_dims, release_of


def gripper_dims(config: TrialConfig, dataset: Dataset) -> tuple[tuple[int, ...], ...]:
    """Raw state dims of each gripper: ``data.gripper_dims``, one by one, where they are given, else R1Pro's by name.

    Raises:
        ConfigError: a dim outside the state.
    """
    width = dataset.state.shape[1]
    if config.data.gripper_dims:
        if max(config.data.gripper_dims) >= width or min(config.data.gripper_dims) < 0:
            raise ConfigError(
                f"data.gripper_dims: {list(config.data.gripper_dims)} leave the state's 0..{width - 1}; "
                "give raw state dims within it"
            )
        return tuple((dim,) for dim in config.data.gripper_dims)
    release = release_of(width, dataset.robot_type)
    return tuple(key_dims((key,), release) for key in GRIPPER_KEYS) if release else ()


def gripper_openings(config: TrialConfig, dataset: Dataset) -> NDArray[np.float32]:
    """Opening of each gripper, the sum of its joints, shape (N, G); G is 0 where none is known."""
    grippers = gripper_dims(config, dataset)
    if not grippers:
        return np.empty((len(dataset.state), 0), dtype=np.float32)
    return np.stack([dataset.state[:, list(dims)].sum(axis=1) for dims in grippers], axis=1)


def moving(opening: NDArray[np.float32], reach: int, threshold: float) -> NDArray[np.bool_]:
    """Frames within ``reach`` frames of a motion.

    Args:
        opening: a gripper's opening over an episode (n,).
        reach: frames to either side, at least 1.
        threshold: the least change of the opening, within reach, that counts as motion.
    """
    padded = np.pad(opening, reach, mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return (views.max(axis=1) - views.min(axis=1)) > threshold


def merge_gaps(mask: NDArray[np.bool_], longest: int) -> NDArray[np.bool_]:
    """A copy in which gaps of up to ``longest`` frames between two segments are filled."""
    merged = mask.copy()
    inside = np.flatnonzero(mask)
    for before, after in zip(inside[:-1], inside[1:], strict=True):
        if after - before - 1 <= longest:
            merged[before:after] = True
    return merged


def dilate(mask: NDArray[np.bool_], frames: int) -> NDArray[np.bool_]:
    """A copy in which every segment is longer by ``frames`` at both ends."""
    kernel = np.ones(2 * frames + 1)
    return np.convolve(mask, kernel, mode="full")[frames : frames + len(mask)] > 0.5


def episode_segments(openings: NDArray[np.float32], config: SegmentConfig, fps: int) -> NDArray[np.bool_]:
    """Frames of one episode that belong to a segment, shape (n,).

    Args:
        openings: of each gripper (n, G), in metres.
        config: threshold, window, gap and dilation.
        fps: frames per second.
    """
    # a change within a window is seen from its middle
    reach = max(1, round(config.window_s * fps / 2))
    motions = [moving(openings[:, g], reach, config.threshold_m) for g in range(openings.shape[1])]
    anywhere = np.logical_or.reduce(motions)
    return dilate(merge_gaps(anywhere, round(config.merge_s * fps)), round(config.dilate_s * fps))


def find_segments(config: TrialConfig, dataset: Dataset) -> NDArray[np.bool_]:
    """Frames of a dataset that belong to a segment, shape (N,); found once and kept in the cache.

    Raises:
        ConfigError: no gripper is known, or nothing moves beyond the threshold.
    """
    openings = gripper_openings(config, dataset)
    if not openings.shape[1]:
        raise ConfigError(
            "weighting.scheme: 'segment' needs a gripper, and none is known in this dataset; "
            "set data.gripper_dims to its raw state dims"
        )
    segment = config.weighting.segment
    digest = hashlib.sha256(f"{segment.model_dump_json()}{dataset.fps}{dataset.lengths.tolist()}".encode())
    digest.update(openings.tobytes())
    file = cache_home(config.data.cache_dir) / "segments" / f"{digest.hexdigest()[:16]}.npy"
    if file.is_file():
        mask: NDArray[np.bool_] = np.load(file, allow_pickle=False)
        return mask
    parts = [
        episode_segments(openings[start : start + length], segment, dataset.fps)
        for start, length in zip(dataset.starts, dataset.lengths, strict=True)
    ]
    mask = np.concatenate(parts)
    if not mask.any():
        raise ConfigError(
            f"weighting.segment.threshold_m is {segment.threshold_m:g}, no gripper moves that much within "
            f"{segment.window_s:g} s (the widest opens {np.ptp(openings, axis=0).max():.3g}); lower it"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    staging = file.with_name(f".{os.getpid()}-{file.name}")
    np.save(staging, mask)
    os.replace(staging, file)
    return mask


def draw_segments(config: TrialConfig, dataset: Dataset, episodes: int, out: Path) -> None:
    """Write a page with the openings of the first episodes, their segments shaded."""
    import plotly.graph_objects as go
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    mask, openings = find_segments(config, dataset), gripper_openings(config, dataset)
    shown = range(min(episodes, len(dataset.lengths)))
    titles = [f"episode {e}: {100 * mask[dataset.rows_of((e,))].mean():.0f} % in segments" for e in shown]
    figure = make_subplots(rows=len(titles), cols=1, subplot_titles=titles)
    for position, episode in enumerate(shown, start=1):
        rows = dataset.rows_of((episode,))
        seconds = dataset.timestamp[rows]
        for gripper in range(openings.shape[1]):
            line = go.Scatter(
                x=seconds,
                y=openings[rows, gripper],
                name=f"gripper {gripper}",
                showlegend=position == 1,
                line_color=qualitative.Plotly[gripper % len(qualitative.Plotly)],
            )
            figure.add_trace(line, row=position, col=1)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], mask[rows], [False]]).astype(int)))
        for start, stop in edges.reshape(-1, 2):
            figure.add_vrect(
                x0=seconds[start], x1=seconds[stop - 1], opacity=0.2, fillcolor="orange", row=position, col=1
            )
    figure.update_layout(height=240 * len(titles), title="Gripper openings (m) over seconds; segments shaded")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(out, include_plotlyjs=True)


def main(arguments: list[str] | None = None) -> int:
    """Draw the segments of a configuration's dataset."""
    parser = Parser(prog="python -m smolvla_core.segments", description=__doc__)
    parser.add_argument("config", help="a trial's YAML; weighting.segment holds the thresholds")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--dataset", type=int, default=0, help="number in data.train, from 0 (default: the main one)")
    parser.add_argument("--out", type=Path, default=Path("segments.html"))
    options = parser.parse_args(arguments)

    def command() -> int:
        config = load_config(options.config, options.set)
        if not 0 <= options.dataset < len(config.data.train):
            raise ConfigError(f"--dataset: got {options.dataset}; data.train lists {len(config.data.train)}, from 0")
        if options.episodes < 1:
            raise ConfigError(f"--episodes is {options.episodes}; it must be at least 1")
        refuse_unwritable("--out", options.out.parent)
        if options.out.is_dir():
            raise ConfigError(f"--out: {options.out} is a folder; give the name of a file")
        draw_segments(config, open_dataset(config.data, options.dataset), options.episodes, options.out)
        print(options.out)
        return OK

    return answer(command)


if __name__ == "__main__":
    sys.exit(main())

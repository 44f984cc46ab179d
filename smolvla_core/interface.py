"""What a policy sees and does: cameras, state, actions and their statistics.

Everything a checkpoint needs besides the weights. It is resolved once, from the configuration and
the *training* episodes, and stored with the trial's state, so that a policy can be exported where
the dataset is not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from smolvla_core.config import TrialConfig
from smolvla_core.config_errors import suggest
from smolvla_core.data.dataset import Dataset, Moments
from smolvla_core.data.keys import picture_size
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.features import Feature, append_features, feature_from_dict, feature_to_dict, resolve_features
from smolvla_core.relative import Pairs, anchors, chunk_moments, resolve_pairs
from smolvla_core.state import StateSelection, select_state

IMAGE_PREFIX = "observation.images."


@dataclass(frozen=True)
class CameraView:
    """One camera: its key in the policy, its key in the dataset, and the size of its frames."""

    policy_key: str
    dataset_key: str
    height: int
    width: int


@dataclass(frozen=True)
class Interface:
    """A policy's inputs and outputs. B frames, R raw state dims, S dims the policy sees, A action dims."""

    cameras: tuple[CameraView, ...]
    selection: StateSelection
    features: tuple[Feature, ...]
    """Numbers appended to the selection."""
    state: Moments
    """Of the raw state, (R,)."""
    seen: Moments
    """Of what the policy sees: the selection, then the features, (S,)."""
    action: Moments
    """Of the actions as they were recorded, (A,)."""
    learned: Moments
    """Of what the policy predicts, (A,): the same, or where joints are relative of their ways in a chunk."""
    relative: Pairs
    """Which actions those are, and to what of the raw state; none where all are absolute."""
    instructions: tuple[str, ...]
    """Distinct instructions of the training episodes, the most frequent first."""
    fps: int
    robot_type: str | None

    @property
    def state_width(self) -> int:
        """Number of state dims the policy sees, S."""
        return len(self.seen.mean)

    @property
    def action_width(self) -> int:
        """Number of action dims, A."""
        return len(self.action.mean)

    def see(self, raw: NDArray[np.float32], task_info: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """What the policy sees (B, S) of a raw state (B, R) and object poses (B, Q), before normalisation."""
        return see(self.selection, self.features, raw, task_info)

    def anchors(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """What actions are relative to, (B, A), in raw states (B, R); 0 where they are absolute."""
        return anchors(self.relative, raw, self.action_width)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "cameras": [asdict(view) for view in self.cameras],
            "selection": asdict(self.selection),
            "features": [feature_to_dict(feature) for feature in self.features],
            "state": _moments_to_dict(self.state),
            "seen": _moments_to_dict(self.seen),
            "action": _moments_to_dict(self.action),
            "learned": _moments_to_dict(self.learned),
            "relative": [list(pair) for pair in self.relative],
            "instructions": list(self.instructions),
            "fps": self.fps,
            "robot_type": self.robot_type,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(
            cameras=tuple(CameraView(**view) for view in values["cameras"]),
            selection=StateSelection.from_dict(values["selection"]),
            features=tuple(feature_from_dict(feature) for feature in values["features"]),
            state=_moments_from_dict(values["state"]),
            seen=_moments_from_dict(values["seen"]),
            action=_moments_from_dict(values["action"]),
            learned=_moments_from_dict(values.get("learned", values["action"])),
            relative=tuple((action, state) for action, state in values.get("relative", ())),
            instructions=tuple(values["instructions"]),
            fps=values["fps"],
            robot_type=values["robot_type"],
        )


def see(
    selection: StateSelection,
    features: Sequence[Feature],
    raw: NDArray[np.float32],
    task_info: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """See :meth:`Interface.see`."""
    return append_features(selection(raw), features, raw, task_info)


def resolve_interface(
    config: TrialConfig,
    dataset: Dataset,
    episodes: Sequence[int],
    expected_cameras: Sequence[str] | None,
    number: int = 0,
) -> Interface:
    """Resolve a configuration against one of its datasets.

    Args:
        config: the trial.
        dataset: the dataset.
        episodes: that are trained on; statistics are of these alone.
        expected_cameras: the policy's image keys in its order; None when the policy is built anew
            and takes the dataset's.
        number: of the dataset in ``data.train``; the first decides what the policy is like.

    Raises:
        ConfigError: a camera that is missing or unmapped, a state that does not fit.
        DataError: an episode without an instruction.
    """
    source = config.data.train[number]
    rows = dataset.rows_of(tuple(episodes))
    selection = select_state(config.state, dataset.state.shape[1], dataset.robot_type)
    poses = None if dataset.task_info is None else dataset.task_info[rows]
    features = resolve_features(config.state, selection.release, source, None if poses is None else poses.shape[1])
    raw = dataset.state[rows]
    silent = [which for which, text in enumerate(dataset.instructions) if not text.strip()]
    if silent:
        episode = dataset.episode[np.argmax(dataset.instruction == silent[0])]
        raise DataError(f"{dataset.root}: episode {episode} has no instruction; add it to meta/tasks.parquet")
    frames = np.bincount(dataset.instruction[rows], minlength=len(dataset.instructions))
    where = "data.cameras" if number == 0 and source.cameras is None else f"data.train.{number}.cameras"
    mapping = config.data.cameras if source.cameras is None else source.cameras
    cameras = _resolve_cameras(where, mapping, dataset, expected_cameras)
    if number and expected_cameras is not None:
        _refuse_missing_cameras(where, cameras, dataset, expected_cameras)
    action = Moments.of(dataset.action[rows])
    relative = resolve_pairs(dataset) if config.policy.relative_actions else ()
    steps, stride = config.policy.chunk_size, config.data.frame_stride
    return Interface(
        cameras=cameras,
        selection=selection,
        features=features,
        state=Moments.of(raw),
        seen=Moments.of(see(selection, features, raw, poses)),
        action=action,
        learned=chunk_moments(dataset, rows, relative, action, steps, stride),
        relative=relative,
        instructions=tuple(dataset.instructions[i] for i in np.argsort(-frames, kind="stable") if frames[i]),
        fps=dataset.fps,
        robot_type=dataset.robot_type,
    )


def _resolve_cameras(
    where: str, mapping: Mapping[str, str], dataset: Dataset, expected: Sequence[str] | None
) -> tuple[CameraView, ...]:
    available = dataset.camera_keys
    if not available:
        raise ConfigError(f"{dataset.root}: the dataset has no camera; SmolVLA needs at least one")
    pairs = {_image_key(name): key for name, key in mapping.items()} or _match_by_name(where, available, expected)
    if expected is not None:
        for key in pairs:
            if key not in expected:
                near = suggest(_short(key), map(_short, expected))
                raise ConfigError(f"{where}: the policy has no camera '{_short(key)}'{near}")
        pairs = {key: pairs[key] for key in expected if key in pairs}
    views = []
    for policy_key, dataset_key in pairs.items():
        if dataset_key not in available:
            raise ConfigError(f"{where}: the dataset has no '{dataset_key}'{suggest(dataset_key, available)}")
        height, width = picture_size(dataset.meta.features[dataset_key])
        views.append(CameraView(policy_key, dataset_key, height, width))
    if len({view.dataset_key for view in views}) < len(views):
        raise ConfigError(f"{where}: two policy cameras name the same dataset key; give each its own")
    return tuple(views)


def _match_by_name(where: str, available: Sequence[str], expected: Sequence[str] | None) -> dict[str, str]:
    named = {_image_key(key.removeprefix(IMAGE_PREFIX).replace("observation.", "")): key for key in available}
    if expected is None:
        return named
    if not set(expected) <= set(named):
        example = {_short(name): key for name, key in zip(expected, available, strict=False)}
        policy = "pretrained policy" if where == "data.cameras" else "policy"
        raise ConfigError(
            f"{where}: the {policy} expects {', '.join(map(_short, expected))}, the dataset has "
            f"{', '.join(available)}; map them, e.g. {where}: {example}"
        )
    return {key: named[key] for key in expected}


def _refuse_missing_cameras(
    where: str, cameras: Sequence[CameraView], dataset: Dataset, expected: Sequence[str]
) -> None:
    given = {view.policy_key for view in cameras}
    lacking = next((key for key in expected if key not in given), None)
    if lacking is not None:
        raise ConfigError(
            f"{where}: gives the policy no '{_short(lacking)}', which it has from the main dataset; map one of "
            f"{', '.join(dataset.camera_keys)} to it"
        )


def _image_key(name: str) -> str:
    return name if name.startswith(IMAGE_PREFIX) else IMAGE_PREFIX + name


def _short(key: str) -> str:
    return key.removeprefix(IMAGE_PREFIX)


def _moments_to_dict(moments: Moments) -> dict[str, list[float]]:
    return {name: getattr(moments, name).tolist() for name in ("mean", "std", "min", "max")}


def _moments_from_dict(values: Mapping[str, Sequence[float]]) -> Moments:
    return Moments(**{name: np.asarray(values[name], dtype=np.float64) for name in ("mean", "std", "min", "max")})

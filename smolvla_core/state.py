"""Proprioception by name: which numbers of the raw state the policy sees.

A preset is a list of *keys*, resolved to raw dims by the dataset's release of R1Pro's state, so the
same preset means the same quantities in both. The tables stand in ``smolvla_core.r1pro``.

Shapes: B frames, R raw state dims, J columns of the selection.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from smolvla_core.config import StateConfig
from smolvla_core.config_errors import suggest
from smolvla_core.errors import ConfigError
from smolvla_core.r1pro import (
    DERIVED,
    EVERY_ALLOWED_DIM,
    EVERY_DIM,
    FORBIDDEN,
    PRESETS,
    PRIVILEGED,
    RELEASES,
    ROBOT_POSE_KEYS,
)

_KEY = re.compile(r"(?P<name>.+?)(\[:(?P<count>\d+)\])?")


@dataclass(frozen=True)
class Column:
    """One number that the policy sees: ``scale * (sum of raw dims) + offset``."""

    dims: tuple[int, ...]
    scale: float = 1.0
    offset: float = 0.0

    @property
    def is_raw(self) -> bool:
        """Whether it is a raw dim as it stands."""
        return len(self.dims) == 1 and self.scale == 1.0 and self.offset == 0.0

    def __call__(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """The column's values (B,) of a raw state (B, R)."""
        if self.is_raw:
            return raw[:, self.dims[0]]
        return np.float32(self.scale) * raw[:, list(self.dims)].sum(axis=1) + np.float32(self.offset)


@dataclass(frozen=True)
class StateSelection:
    """Columns in the order the policy sees them, and where they came from."""

    columns: tuple[Column, ...]
    raw_width: int
    release: str | None

    @property
    def width(self) -> int:
        """Number of columns, J."""
        return len(self.columns)

    @property
    def indices(self) -> tuple[int, ...]:
        """The raw dims that the columns are made of, in their order."""
        return tuple(dim for column in self.columns for dim in column.dims)

    @property
    def keeps_everything(self) -> bool:
        """Whether the selection is the raw state itself."""
        return self.columns == tuple(Column((dim,)) for dim in range(self.raw_width))

    def __call__(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """The columns (B, J) of a raw state (B, R)."""
        if all(column.is_raw for column in self.columns):
            return raw[:, list(self.indices)]
        return np.stack([column(raw) for column in self.columns], axis=1)

    def matrix(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The selection as ``matrix (J, R) @ raw (R,) + offset (J,)``."""
        matrix = np.zeros((self.width, self.raw_width))
        for position, column in enumerate(self.columns):
            matrix[position, list(column.dims)] = column.scale
        return matrix, np.array([column.offset for column in self.columns])

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``dataclasses.asdict``, from JSON."""
        columns = (Column(tuple(c["dims"]), c["scale"], c["offset"]) for c in values["columns"])
        return cls(tuple(columns), values["raw_width"], values["release"])


def release_of(raw_width: int, robot_type: str | None) -> str | None:
    """The BEHAVIOR release of an R1Pro dataset by its state's width, else None."""
    if robot_type is None or robot_type.lower().replace("_", "") != "r1pro":
        return None
    widths = {layout_width(release): release for release in RELEASES}
    return widths.get(raw_width)


def layout_width(release: str) -> int:
    """Width of a release's raw state."""
    return max(dims.stop for dims in RELEASES[release].values())


def key_columns(keys: Iterable[str], release: str) -> tuple[Column, ...]:
    """Columns of named keys, in the keys' order; ``key[:n]`` is a key's first n dims.

    Raises:
        ConfigError: a key the release lacks, with the nearest that it has.
    """
    layout = RELEASES[release]
    known = {*layout, *(name for name, derived in DERIVED.items() if derived.key in layout)}
    columns: list[Column] = []
    for key in keys:
        match = _KEY.fullmatch(key)
        name, count = (match["name"], match["count"]) if match else (key, None)
        if key == EVERY_DIM:
            columns += [Column((dim,)) for dim in range(layout_width(release))]
        elif key == EVERY_ALLOWED_DIM:
            forbidden = forbidden_dims(release)
            columns += [Column((dim,)) for dim in range(layout_width(release)) if dim not in forbidden]
        elif name in layout:
            columns += [Column((dim,)) for dim in _first_dims(key, layout[name], count)]
        elif key in known:
            derived = DERIVED[key]
            columns.append(Column(tuple(layout[derived.key]), derived.scale, derived.offset))
        else:
            raise ConfigError(_unknown(name, release, known))
    return tuple(columns)


def key_dims(keys: Iterable[str], release: str) -> tuple[int, ...]:
    """Raw dims that named keys are made of, in the keys' order.

    Raises:
        ConfigError: as :func:`key_columns`.
    """
    return tuple(dim for column in key_columns(keys, release) for dim in column.dims)


def robot_pose_dims(release: str | None) -> tuple[tuple[int, ...], ...] | None:
    """State dims of the robot's position in the world, and of cosine and sine of its roll, pitch and yaw.

    None where the release does not have them, or the state is not R1Pro's.
    """
    if release is None or any(key not in RELEASES[release] for key in ROBOT_POSE_KEYS):
        return None
    return tuple(key_dims((key,), release) for key in ROBOT_POSE_KEYS)


def forbidden_dims(release: str) -> frozenset[int]:
    """Raw dims that the standard track forbids."""
    layout = RELEASES[release]
    return frozenset(key_dims((key for key in FORBIDDEN if key.partition("[")[0] in layout), release))


def top32_indices(release: str = "2025") -> tuple[int, ...]:
    """The 32 raw dims of the recipe; ascending in the 2025 release."""
    return key_dims(PRESETS["top32"], release)


def select_state(config: StateConfig, raw_width: int, robot_type: str | None) -> StateSelection:
    """Resolve a configuration against a dataset's raw state.

    Args:
        config: preset, explicit keys or explicit dims.
        raw_width: width of the dataset's ``observation.state``.
        robot_type: ``robot_type`` of the dataset's ``info.json``.

    Raises:
        ConfigError: unknown key, dim out of range, a preset that needs BEHAVIOR's layout, or a
            dim that the standard track forbids.
    """
    release = release_of(raw_width, robot_type)
    columns = _resolve(config, raw_width, release, robot_type)
    chosen = "state.indices" if config.indices else "state.keys"
    out_of_range = [dim for column in columns for dim in column.dims if not 0 <= dim < raw_width]
    if out_of_range:
        raise ConfigError(
            f"{chosen}: {out_of_range[0]} is outside the raw state's 0..{raw_width - 1}; give dims within it"
        )
    if len(set(columns)) < len(columns):
        raise ConfigError(f"{chosen}: a dim is listed twice; list each once")
    selection = StateSelection(columns, raw_width, release)
    if release is not None and config.track == "standard":
        _refuse_forbidden(selection.indices, release)
    return selection


def _resolve(config: StateConfig, raw_width: int, release: str | None, robot_type: str | None) -> tuple[Column, ...]:
    if config.indices:
        return tuple(Column((dim,)) for dim in config.indices)
    keys = config.keys or PRESETS[str(config.preset)]
    if keys == (EVERY_DIM,):
        return tuple(Column((dim,)) for dim in range(raw_width))
    if release is None:
        wanted = "state.keys" if config.keys else f"state.preset '{config.preset}'"
        raise ConfigError(
            f"{wanted} needs an R1Pro state of 256 (2025) or 61 (2026) dims, the dataset's robot_type is "
            f"{robot_type!r} and its state has {raw_width}; set state.preset to identity or give state.indices"
        )
    return key_columns(keys, release)


def _first_dims(key: str, dims: range, count: str | None) -> range:
    if count is not None and not 1 <= int(count) <= len(dims):
        raise ConfigError(f"state.keys: '{key}' asks for {count} dims; it has 1 to {len(dims)}")
    return dims if count is None else dims[: int(count)]


def _unknown(name: str, release: str, known: Iterable[str]) -> str:
    if name.removeprefix("observation.") in PRIVILEGED:
        return (
            f"state.keys: '{name}' is privileged and no part of the state, so the standard track forbids it; remove "
            "it. Under state.track open, state.features can take the basket's distance from it"
        )
    return f"state.keys: release {release} has no '{name}'{suggest(name, known)}"


def _refuse_forbidden(indices: Sequence[int], release: str) -> None:
    taken = sorted(forbidden_dims(release) & set(indices))
    if not taken:
        return
    key = next(key for key, dims in RELEASES[release].items() if taken[0] in dims)
    others = f" and {len(taken) - 1} more are" if len(taken) > 1 else " is"
    raise ConfigError(
        f"state: dim {taken[0]} ('{key}'){others} forbidden in the standard track; "
        "choose other dims or set state.track to open"
    )

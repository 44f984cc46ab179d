"""Helpers for tests on BEHAVIOR's raw layout: look at files, and damage them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST, SECOND = 60010, 60020
HEAD = "observation.images.rgb.head"


def contents(root: Path) -> dict[str, str]:
    """Digest of every file and the name of every folder under ``root``."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(root.rglob("*"))
    }


def data_file(root: Path, number: int = FIRST) -> Path:
    return root / f"data/task-{number // 10000:04d}/episode_{number:08d}.parquet"


def video_file(root: Path, number: int = FIRST, key: str = HEAD) -> Path:
    return root / f"videos/task-{number // 10000:04d}/{key}/episode_{number:08d}.mp4"


def annotation_file(root: Path, number: int = FIRST) -> Path:
    return root / f"annotations/task-{number // 10000:04d}/episode_{number:08d}.json"


def edit_info(root: Path, **values: Any) -> None:
    """Set keys of info.json; ``...`` removes one."""
    edit_json(
        root / "meta/info.json", lambda info: info.update(values) or [info.pop(k) for k in values if values[k] is ...]
    )


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value, default=str))


def edit_column(path: Path, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change a column, given as an array (T,) or (T, D) of its own type."""
    table = pq.read_table(path)
    column = table[key]
    nested = pa.types.is_list(column.type)
    values = np.array(column.to_pylist(), dtype=column.type.value_type.to_pandas_dtype() if nested else None)
    changed = change(values)
    array = pa.array(changed.tolist(), type=column.type)
    pq.write_table(table.set_column(table.schema.get_field_index(key), key, array), path)


def set_column(path: Path, key: str, array: pa.Array | None) -> None:
    """Replace a column, or remove it."""
    table = pq.read_table(path)
    place = table.schema.get_field_index(key)
    pq.write_table(table.remove_column(place) if array is None else table.set_column(place, key, array), path)

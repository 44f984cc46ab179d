"""What a download of the 2025 challenge says of itself: its metadata files, read and checked."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvla_core.config_errors import suggest
from smolvla_core.data.behavior import layout
from smolvla_core.data.inside import INFO_FILE, PICTURES_NEED, check_template
from smolvla_core.data.wording import printable, unreadable
from smolvla_core.errors import DataError


@dataclass(frozen=True)
class Task:
    """One of the challenge's tasks."""

    number: int
    name: str
    instruction: str
    """What the robot is told."""


def read_info(root: Path) -> dict[str, Any]:
    """``meta/info.json``, its paths, rate and features checked.

    Raises:
        DataError: missing, damaged, of another release, or with a path that leaves the dataset.
    """
    path = root / INFO_FILE
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that holds {INFO_FILE}")
    info = _read_json(path)
    features = info.get("features")
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise DataError(f"{path}: has no 'features'; download it again")
    version = str(info.get("codebase_version"))
    if version.startswith("v3"):
        raise DataError(f"{root}: is LeRobot {version} already and needs no import; use the folder as it is")
    if version != "v2.1":
        raise DataError(f"{path}: codebase_version is {version}; only the 2025 release (v2.1) is imported")
    info["fps"] = _whole(path, "fps", info.get("fps"), layout.MOST_FPS)
    info["chunks_size"] = _whole(path, "chunks_size", info.get("chunks_size"), 10**9)
    info.setdefault("annotation_path", layout.ANNOTATION_PATH)
    for name in ("data_path", "annotation_path"):
        info[name] = check_template(name, info.get(name))
    info["video_path"] = check_template("video_path", info.get("video_path"), PICTURES_NEED)
    return info


def read_task(root: Path, task: int | str) -> Task:
    """A task by its number or name.

    Raises:
        DataError: ``meta/tasks.jsonl`` is missing or damaged, or has no such task.
    """
    tasks = {}
    for row in _read_jsonl(root / layout.TASKS_FILE, ("task_index",)):
        name = str(row.get("task_name", row.get("task")))
        tasks[int(row["task_index"])] = Task(int(row["task_index"]), name, str(row.get("task", name)))
    if not tasks:
        raise DataError(f"{root / layout.TASKS_FILE}: lists no tasks; download it again")
    if isinstance(task, str) and not (task.isdecimal() and len(task) < 10):
        by_name = {known.name: known for known in tasks.values()}
        if task not in by_name:
            raise DataError(f"--task: {root} has no task '{task}'{suggest(task, by_name)}")
        return by_name[task]
    number = int(task)
    if number not in tasks:
        nearest = min(tasks, key=lambda known: abs(known - number))
        raise DataError(f"--task: {root} has no task {task}; the nearest is {nearest} ({tasks[nearest].name})")
    return tasks[number]


def read_lengths(root: Path, task: int, chunks_size: int) -> dict[int, int]:
    """Length of each of a task's episodes by ``meta/episodes.jsonl``, by original number.

    Raises:
        DataError: the file is missing or damaged.
    """
    rows = _read_jsonl(root / layout.EPISODES_FILE, ("episode_index", "length"))
    lengths = {int(row["episode_index"]): int(row["length"]) for row in rows}
    return {number: length for number, length in lengths.items() if number // chunks_size == task}


def width_of(feature: Mapping[str, Any]) -> int | None:
    """Declared width of a vector; None where the release leaves it open (null)."""
    shape = feature.get("shape")
    width = shape[0] if isinstance(shape, list) and len(shape) == 1 else None
    return width if isinstance(width, int) else None


def _whole(path: Path, name: str, value: object, most: int) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= most and value == int(value):
        return int(value)
    raise DataError(f"{path}: {name} is {printable(repr(value))[:40]}; it must be a whole number from 1 to {most}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: missing; download the meta folder too, and give the folder that holds it") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: not valid JSON; download it again") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds no JSON object; download it again")
    return value


def _read_jsonl(path: Path, needed: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Rows of a file of JSON lines, of which the ``needed`` keys hold numbers."""
    number = 0
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                number += 1
                if not line.strip():
                    continue
                row = json.loads(line)
                for key in needed:
                    int(row[key])
                yield row
    except FileNotFoundError:
        raise DataError(f"{path}: missing; download the meta folder too") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no text in UTF-8; download the file again") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise DataError(f"{path}: line {number} is damaged; download the file again") from None

"""Skill annotations of an imported BEHAVIOR dataset: which frames belong to which skill."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvla_core.data.inside import inside
from smolvla_core.data.wording import unreadable
from smolvla_core.errors import DataError

EPISODE_MAP = "meta/behavior_episodes.jsonl"
"""One line an episode: its new number, the original one, its length, its annotation's file or null."""

MANIPULATIONS = ("pick", "place")


@dataclass(frozen=True)
class SkillSpan:
    """Frames ``start`` up to ``stop`` (not included) in which a skill is performed."""

    skill: str
    """Its description; several, where it has several, with ', ' between them."""
    start: int
    stop: int


def load_annotations(root: Path) -> dict[int, list[SkillSpan]] | None:
    """Skills of each annotated episode, by the imported dataset's own episode numbers.

    Args:
        root: a folder that `smolvla_core.data.behavior.import_behavior` has written.

    Returns:
        Spans in order of their start, clamped to the episode; None where the dataset has no
        annotations at all.

    Raises:
        DataError: the map or an annotation is damaged.
    """
    map_file = Path(root) / EPISODE_MAP
    if not map_file.is_file():
        return None
    annotations = {}
    number = 0
    try:
        for line in map_file.read_text(encoding="utf-8").splitlines():
            number += 1
            row = json.loads(line)
            name = row["annotation"]
            if name is not None:
                spans = read_annotation(inside(Path(root), name), int(row["length"]))
                annotations[int(row["episode_index"])] = spans
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        raise DataError(f"{map_file}: line {number} is damaged; import the dataset again") from None
    return annotations or None


def read_annotation(path: Path, length: int) -> list[SkillSpan]:
    """Skills of one annotation file, clamped to an episode of ``length`` frames.

    Raises:
        DataError: missing, not JSON, or not in BEHAVIOR's form.
    """
    try:
        annotation = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: the annotation is missing; download or import it again") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: the annotation is not valid JSON; download it again") from None
    try:
        return skill_spans(annotation, length)
    except KeyError as error:
        raise DataError(f"{path}: not a BEHAVIOR annotation, it lacks {error}; download it again") from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: not a BEHAVIOR annotation ({error}); download it again") from None


def skill_spans(annotation: Mapping[str, Any], length: int) -> list[SkillSpan]:
    """Spans of ``skill_annotation``; a skill that is performed in several parts gives several.

    ``frame_duration`` is ``[start, stop]`` or a list of such pairs; ``skill_description`` a string
    or nested lists of strings.

    Raises:
        KeyError, TypeError, ValueError: an entry is not in that form.
    """
    spans = []
    for entry in annotation["skill_annotation"]:
        skill = ", ".join(_strings(entry["skill_description"]))
        for start, stop in _pairs(entry["frame_duration"]):
            first, last = max(0, start), min(length, stop)
            if first < last:
                spans.append(SkillSpan(skill, first, last))
    return sorted(spans, key=lambda span: (span.start, span.stop))


def manipulation_spans(spans: Iterable[SkillSpan]) -> list[SkillSpan]:
    """The picks and places among ``spans``: where a hand's precision decides the task."""
    return [span for span in spans if any(part.startswith(MANIPULATIONS) for part in span.skill.lower().split(", "))]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        return
    for part in value:
        yield from _strings(part)


def _pairs(value: Sequence[Any]) -> Iterator[tuple[int, int]]:
    if len(value) == 2 and all(isinstance(part, int | float) for part in value):
        yield int(value[0]), int(value[1])
        return
    for part in value:
        if not isinstance(part, list | tuple):
            raise ValueError(f"frame_duration {value!r} holds no [start, stop] pairs")
        yield from _pairs(part)

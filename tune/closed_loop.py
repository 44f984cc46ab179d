"""What a training achieved when it acted: results of evaluators, kept with its record.

    trials/007/closed_loop/behavior/hiding_Easter_eggs_301_0.json    as the evaluator wrote them
    trials/007/closed_loop/garden/results.json
    trials/007/closed_loop/garden_attached/results.json              attached where the study's own acting is kept
    finalists/...                                                    the same
    trials/007/tried/5/results.json                                  with 5 actions of each chunk, to be chosen by it

The official evaluator writes one JSON a rollout (BEHAVIOR-1K ``learning/eval.py`` of 2025, with the
instance in the file's name, and ``eval/eval.py`` of 2026, with it inside); ``smolvla_core.evaluate``
one an evaluation. A file that is attached again takes its own place.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvla_core.closed_loop.scores import wilson
from smolvla_core.errors import DataError
from tune.intervals import Errors, Interval, interval, mean_error

FOLDER, TRIED = "closed_loop", "tried"
BEHAVIOR = "behavior"
"""Name of the official evaluator."""
OWN_KIND = "smolvla_core.closed_loop"
"""``kind`` of a file of ``smolvla_core.evaluate``."""
ASKED = ("asked_n_action_steps", "asked_instruction")
"""What is told of a policy, beside its own ways, in results of a study's own acting."""
ATTACHED = "_attached"
SCORES = ("eggs_placed", "q", "success")
"""What is told of rollouts, the key metric first; where an evaluator knows it."""
_OFFICIAL_NAME = re.compile(r"(?P<task>.+)_(?P<instance>\d+)_(?P<rollout>\d+)")


@dataclass(frozen=True)
class Rollout:
    """One episode: ``eggs_placed`` is None where the evaluator does not tell."""

    task: str
    instance: int
    number: int
    q: float
    success: bool
    eggs_placed: float | None = None


@dataclass(frozen=True)
class ResultFile:
    """A file of results: which evaluator's, the name that it is kept under, and what it says."""

    evaluator: str
    name: str
    rollouts: tuple[Rollout, ...]
    settings: Mapping[str, Any]
    """What was run; empty where the file does not tell."""


@dataclass(frozen=True)
class Achieved:
    """All that one evaluator says of a training."""

    evaluator: str
    files: tuple[Path, ...]
    rollouts: tuple[Rollout, ...]
    settings: Mapping[str, Any]
    time: float
    """When the newest file was attached, in seconds since the epoch."""

    def rows(self, score: str) -> list[tuple[int, int, float]] | None:
        """(instance, its rollouts, their mean), as episodes' errors are recorded; None where it is not known."""
        values: dict[int, list[float]] = {}
        for rollout in self.rollouts:
            value = getattr(rollout, score)
            if value is None:
                return None
            values.setdefault(rollout.instance, []).append(float(value))
        return [(instance, len(own), sum(own) / len(own)) for instance, own in sorted(values.items())]

    @property
    def is_own(self) -> bool:
        """Whether the study itself let the training act."""
        return is_own(self.settings)

    @property
    def order(self) -> tuple[float, ...]:
        """To rank by, the higher the better: the means of the scores that are known, the key metric first."""
        rows = [self.rows(score) for score in SCORES]
        return tuple(sum(share for *_, share in known) / len(known) for known in rows if known)

    @property
    def n_action_steps(self) -> int | None:
        """Actions of a chunk that were done before the policy was asked again; None where that is not told."""
        steps = self.settings.get("policy", {}).get("n_action_steps")
        return None if steps is None else int(steps)

    def scores(self) -> dict[str, Interval]:
        """Each known score with its interval over instances."""
        return pooled([self])

    def metrics(self, kept: str = FOLDER) -> dict[str, float]:
        """The scores as metrics: ``closed_loop/garden/eggs_placed``, with ``_low`` and ``_high``."""
        prefix = f"{kept}/{self.evaluator}"
        found: dict[str, float] = {f"{prefix}/rollouts": len(self.rollouts)}
        for name, score in self.scores().items():
            values = {"": score.mean, "_low": score.low, "_high": score.high}
            found |= {f"{prefix}/{name}{end}": value for end, value in values.items() if value is not None}
        return found


def pooled(seeds: Sequence[Achieved]) -> dict[str, Interval]:
    """Each score over several trainings of one configuration, with the interval over seeds and instances.

    Of instances that all of them were scored on.
    """
    found = {}
    for name in SCORES:
        errors = _errors(seeds, name)
        if errors is not None:
            found[name] = _bounded(mean_error(errors), len(errors.episodes))
    return found


def difference(better: Sequence[Achieved], baseline: Sequence[Achieved], score: str) -> Interval | None:
    """How much higher a score is than the baseline's, paired by seed and instance; None where it cannot be told."""
    ours, theirs = _errors(better, score), _errors(baseline, score)
    if ours is None or theirs is None or ours.episodes != theirs.episodes or ours.sums.shape != theirs.sums.shape:
        return None
    return interval(lambda s, e: ours.totals(s, e) - theirs.totals(s, e), *ours.sums.shape)


def best_try(tries: Sequence[Achieved]) -> Achieved:
    """Which way of acting achieves most; of equals that which asks the policy least often."""
    return max(tries, key=lambda each: (each.order, each.n_action_steps or 0))


def evaluator_name(env: str) -> str:
    """What the evaluator of an environment is called: a name that a folder can have."""
    return re.sub(r"[^\w.-]", "_", env)


def is_own(settings: Mapping[str, Any]) -> bool:
    """Whether results with these settings are of a study's own acting."""
    return set(ASKED) <= set(settings.get("policy", {}))


def make_room(results: Path) -> None:
    """Move what was attached out of the folder in which a study keeps its own acting."""
    files = sorted(results.glob("[!.]*.json"))
    if not any(is_own(read_results(file).settings) for file in files):
        for file in files:
            place = results.with_name(results.name + ATTACHED) / file.name
            place.parent.mkdir(exist_ok=True)
            file.replace(place)


def read_results(path: Path) -> ResultFile:
    """Read a file of either evaluator.

    Raises:
        DataError: it is neither's, or was damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the JSON that an evaluator wrote")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError):
        raise DataError(f"{path}: is no JSON; give the file as the evaluator wrote it") from None
    try:
        if document.get("kind") == OWN_KIND:
            return _own(document)
        return _official(document, path.stem)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: is no result of BEHAVIOR's evaluator or of smolvla_core.evaluate "
            f"({type(error).__name__}: {error}); give the file as the evaluator wrote it"
        ) from None


def attach(record: Path, source: Path) -> bool:
    """Keep a file of results with a training's record; False where it is there already.

    It never takes the place of what the study's own acting came to.

    Args:
        record: the training's folder.
        source: the file.

    Raises:
        DataError: as :func:`read_results`.
    """
    found, data = read_results(source), source.read_bytes()
    place = record / FOLDER / found.evaluator / found.name
    if place.is_file() and is_own(read_results(place).settings) and place.read_bytes() != data:
        place = record / FOLDER / f"{found.evaluator}{ATTACHED}" / found.name
    if place.is_file() and place.read_bytes() == data:
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(place)
    return True


def achieved(record: Path, kept: str = FOLDER) -> tuple[Achieved, ...]:
    """What is kept with a training's record, by evaluator.

    Args:
        record: the training's folder.
        kept: in which folder of it.

    Raises:
        DataError: a file was damaged.
    """
    found = []
    for folder in sorted(path for path in (record / kept).glob("*") if path.is_dir()):
        files = tuple(sorted(folder.glob("[!.]*.json")))
        if not files:
            continue
        read = [read_results(file) for file in files]
        rollouts = tuple(rollout for each in read for rollout in each.rollouts)
        time = max(file.stat().st_mtime for file in files)
        found.append(Achieved(folder.name, files, rollouts, read[-1].settings, time))
    return tuple(found)


def _own(document: Mapping[str, Any]) -> ResultFile:
    env = document["env"]
    task = str(env.get("task") or env["name"])
    rollouts = tuple(
        Rollout(
            task,
            int(row["instance"]),
            0,
            _share(row["q"]),
            bool(row["success"]),
            _share(row["eggs_placed"]),
        )
        for row in document["episodes"]
    )
    if not rollouts:
        raise ValueError("it has no episodes")
    evaluator = evaluator_name(str(env["name"]))
    settings = {"env": env, "policy": document["policy"], "seed": document["seed"]}
    return ResultFile(evaluator, "results.json", rollouts, settings)


def _official(document: Mapping[str, Any], stem: str) -> ResultFile:
    q = _share(document["q_score"]["final"])
    if "instance_id" in document:
        task, instance, number = document["task"], document["instance_id"], document["rollout_id"]
    else:
        named = _OFFICIAL_NAME.fullmatch(stem)
        if named is None:
            raise ValueError("its name must be TASK_INSTANCE_ROLLOUT.json, as it was written")
        task, instance, number = named["task"], named["instance"], named["rollout"]
    rollout = Rollout(str(task), int(instance), int(number), q, bool(document.get("success", q == 1.0)))
    name = re.sub(r"[^\w.-]", "_", f"{rollout.task}_{rollout.instance}_{rollout.number}.json")
    return ResultFile(BEHAVIOR, name, (rollout,), {})


def _share(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a score is {number}")
    return number


def _bounded(found: Interval, instances: int) -> Interval:
    """Where all instances score alike resampling them tells nothing, and Wilson's bounds are given."""
    if found.low is None or found.high is None:
        return found
    if found.low < found.high:
        return Interval(found.mean, max(found.low, 0.0), min(found.high, 1.0))  # a share is none beyond these
    known = wilson(min(found.mean, 1.0) * instances, instances)
    return Interval(known.mean, known.low, known.high)


def _errors(seeds: Sequence[Achieved], score: str) -> Errors | None:
    every = [each.rows(score) for each in seeds]
    rows = [one for one in every if one is not None]
    if not rows or len(rows) < len(every):
        return None
    shared = set.intersection(*({row[0] for row in one} for one in rows))
    return Errors.of([[row for row in one if row[0] in shared] for one in rows]) if shared else None

"""What a study did, in its folder, as JSON that is only ever added to.

    trials/007/params.json     number, name, parameters, configuration
    trials/007/results.jsonl   one line a report
    trials/007/error.txt       the traceback of one that failed
    trials/007/outcome.json    how it ended; absent while it runs
    trials/007/closed_loop/    what evaluators said of it (tune.closed_loop)
    trials/007/tried/          what it achieved when it acted to be chosen (tune.choice)
    finalists/...              the same of the finalists' runs
    sessions.jsonl             one line each time the study is started: when, and by which versions
    acts.jsonl                 one line each time a training has acted, or was to: when

A study is rebuilt from these after its process was killed, so each file is complete or absent, and
a line that was cut off is dropped.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smolvla_core.errors import DataError
from tune.clock import StudyClock, clock_of
from tune.closed_loop import TRIED, Achieved, achieved

TRIALS, FINALISTS = "trials", "finalists"
SESSIONS, ACTS = "sessions.jsonl", "acts.jsonl"
_UNKNOWN: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Session:
    """A start of the study.

    Attributes:
        time: seconds since the epoch.
        code: the versions that ran (``tune.versions``); empty where they were not recorded.
        resources: ``cpus`` and ``gpus`` that each trial was given; likewise.
    """

    time: float
    code: Mapping[str, str]
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One report of a trial.

    Attributes:
        metrics: its numbers, ``samples_seen`` among them.
        curve: training metrics between the report before and this one.
        checkpoint: the state that was saved with it: a path relative to the study's folder, or an address.
        last: the trial was ended upon it.
        time: seconds since the epoch.
        failure: why the trial failed, where this says so.
        episodes: metric -> (episode, its scored frames, their mean error), for paired comparisons.
        host: where it ran; pid: in which process.
    """

    metrics: Mapping[str, float]
    curve: tuple[Mapping[str, float], ...] = ()
    checkpoint: str | None = None
    last: bool = False
    time: float = 0.0
    failure: str | None = None
    episodes: Mapping[str, Sequence[Sequence[float]]] | None = None
    host: str | None = None
    pid: int | None = None

    @property
    def samples_seen(self) -> int:
        """Training frames drawn; 0 where it was not reported."""
        return int(self.metrics.get("samples_seen", 0))


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: ``complete``, ``pruned`` (stopped by ASHA) or ``failed``."""

    state: str
    reason: str | None = None
    time: float = 0.0


@dataclass(frozen=True)
class TrialRecord:
    """All that is known of a trial.

    ``achieved`` is what came of it when it acted, by evaluator; ``tried`` the same of each way of acting
    that it was to be chosen by.
    """

    number: int
    name: str | None
    params: Mapping[str, Any]
    config: Mapping[str, Any]
    started: float
    results: tuple[Result, ...] = ()
    outcome: Outcome | None = None
    achieved: tuple[Achieved, ...] = ()
    tried: tuple[Achieved, ...] = ()

    def values(self, metric: str) -> dict[int, float]:
        """Samples seen -> the metric there, in the order of the reports."""
        return {r.samples_seen: r.metrics[metric] for r in self.results if metric in r.metrics}

    @property
    def checkpoint(self) -> str | None:
        """The last state that was saved."""
        return next((r.checkpoint for r in reversed(self.results) if r.checkpoint), None)


@dataclass
class Records:
    """The records in a study's folder; ``kind`` is ``trials`` of the search, or ``finalists``."""

    run_dir: Path
    kind: str = TRIALS
    _reported: dict[int, int] = field(default_factory=dict)

    def start_session(self, code: Mapping[str, str] = _UNKNOWN, resources: Mapping[str, float] = _UNKNOWN) -> int:
        """Note that the study is started, by which versions and with what for each trial.

        Returns:
            how many times it has been, this one included.
        """
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._clock.not_before(max((*(session.time for session in self.sessions()), *self._event_times()), default=0.0))
        document = {"time": self._clock.now(), "pid": os.getpid(), "code": dict(code), "resources": dict(resources)}
        _append(self.run_dir / SESSIONS, document)
        return len(self.sessions())

    def sessions(self) -> list[Session]:
        """Every time that the study was started."""
        lines = _lines(self.run_dir / SESSIONS)
        return [Session(line["time"], line.get("code", {}), line.get("resources", {})) for line in lines]

    def seconds_used(self) -> float:
        """How long the study's sessions lasted so far, each up to its last record of either kind."""
        starts = [session.time for session in self.sessions()]
        events = self._event_times()
        total = 0.0
        for begin, end in zip(starts, [*starts[1:], float("inf")], strict=False):
            total += max((t - begin for t in events if begin <= t < end), default=0.0)
        return total

    def start_trial(self, number: int, name: str | None, params: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Record a trial; one that is continued keeps its record."""
        folder = self.folder(number)
        if (folder / "params.json").is_file():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for stale in ("results.jsonl", "outcome.json"):  # of one under this number that never came to start
            (folder / stale).unlink(missing_ok=True)
        document = {"number": number, "name": name, "params": params, "config": config, "time": self._clock.now()}
        _write(folder / "params.json", document)

    def add_result(self, number: int, result: Result) -> bool:
        """Record a report. False for one that an earlier process had recorded already, at as many samples."""
        if self._reported.setdefault(number, self._last_samples(number)) >= result.samples_seen > 0:
            return False
        self._reported[number] = result.samples_seen
        document = {key: value for key, value in vars(result).items() if value not in (None, False, ())}
        _append(self.folder(number) / "results.jsonl", document | {"time": self._clock.now()})
        return True

    def end_trial(self, number: int, state: str, reason: str | None) -> None:
        """Record how a trial ended. One that was never started is not listed for it."""
        _write(self.folder(number) / "outcome.json", {"state": state, "reason": reason, "time": self._clock.now()})

    def note_act(self, number: int) -> None:
        """Note that a training acts no longer: the time up to here was used."""
        _append(self.run_dir / ACTS, {"time": self._clock.now(), "of": f"{self.kind}/{number:03d}"})

    def keep_traceback(self, number: int, text: str) -> None:
        """Keep what a failed trial's process last said, in ``error.txt``."""
        path = self.folder(number) / "error.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def trials(self) -> list[TrialRecord]:
        """Every recorded trial, by number.

        Raises:
            DataError: a file was damaged.
        """
        folders = [folder for folder in (self.run_dir / self.kind).glob("*") if folder.name.isdecimal()]
        started = [folder for folder in folders if (folder / "params.json").is_file()]
        return [self._trial(folder) for folder in sorted(started, key=lambda folder: int(folder.name))]

    def locate(self, checkpoint: str) -> str:
        """Where a recorded checkpoint is: an absolute path, or an address as it stands."""
        return checkpoint if "://" in checkpoint else str(self.run_dir.absolute() / checkpoint)

    def relative(self, path: str) -> str:
        """A path below the study's folder as it is recorded, so that the folder can be moved."""
        if "://" in path:
            return path
        place, root = Path(path).resolve(), self.run_dir.resolve()
        return str(place.relative_to(root)) if place.is_relative_to(root) else path

    @property
    def _clock(self) -> StudyClock:
        return clock_of(self.run_dir.absolute())

    def _event_times(self) -> list[float]:
        """When anything was recorded, of either kind."""
        every = [trial for kind in (TRIALS, FINALISTS) for trial in Records(self.run_dir, kind).trials()]
        acts = [line["time"] for line in _lines(self.run_dir / ACTS)]
        ran = [t for trial in every for t in (trial.started, *(r.time for r in trial.results), _end_of(trial)) if t]
        return sorted([*ran, *acts])

    def folder(self, number: int) -> Path:
        """Where a trial's record is."""
        return self.run_dir / self.kind / f"{number:03d}"

    def _last_samples(self, number: int) -> int:
        lines = _lines(self.folder(number) / "results.jsonl")
        return max((int(line["metrics"].get("samples_seen", 0)) for line in lines), default=0)

    def _trial(self, folder: Path) -> TrialRecord:
        head = _read(folder / "params.json", "number", "name", "params", "config", "time")
        end = folder / "outcome.json"
        outcome = Outcome(**_read(end, "state", "reason", "time")) if end.is_file() else None
        results = tuple(
            Result(**{**line, "curve": tuple(line.get("curve", ()))}) for line in _lines(folder / "results.jsonl")
        )
        number, name, started = head["number"], head["name"], head["time"]
        acted = {"achieved": achieved(folder), "tried": achieved(folder, TRIED)}
        return TrialRecord(number, name, head["params"], head["config"], started, results, outcome, **acted)


def _end_of(trial: TrialRecord) -> float:
    return trial.outcome.time if trial.outcome else 0.0


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _append(path: Path, document: Mapping[str, Any]) -> None:
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":  # a line that was cut off: end it, so that it is dropped alone
                file.write(b"\n")
        file.write(json.dumps(document).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    documents = []
    for line in path.read_bytes().splitlines():
        try:
            document = json.loads(line)
        except ValueError:  # cut off when its writer was killed
            continue
        if isinstance(document, dict):
            documents.append(document)
    return documents


def _read(path: Path, *keys: str) -> dict[str, Any]:
    """The document's values of these keys."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {key: document[key] for key in keys}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: damaged ({type(error).__name__}: {error}); restore it from a backup, or remove its folder"
        ) from None

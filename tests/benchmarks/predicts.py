"""Does the offline objective tell which policy places more eggs? Rank correlations over trainings.

    python -m tests.benchmarks.predicts RUNS/* --instances 301-330 --out predicts.json

Each folder is what ``python -m smolvla_core.train --out`` leaves: ``metrics.jsonl`` with the held-out
errors, and ``policy``, which acts in the egg garden (``tests.benchmarks.progress``); or that of a study, whose
trials and finalists all count as far as they left a state (``asha.keep_stopped: true`` keeps those of stopped
trials too). A policy that was watched before, on the same instances, is not watched again: its scores are
in ``--out``.

Spearman's rank correlation between each held-out error and each closed-loop score, over the runs, with a
95 % bootstrap interval that resamples runs. Errors are better low and scores high, so that an error that
predicts well correlates at -1.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from smolvla_core.acting import load_actor
from smolvla_core.closed_loop.environment import parse_instances
from smolvla_core.closed_loop.policies import ActorPolicy
from tests.benchmarks.progress import means, watch
from tune.records import FINALISTS, TRIALS, Records
from tune.report.results import write_policy

SCORES = ("placed", "q", "lifted", "reached", "came", "progress")
RESAMPLES = 2000


@dataclass(frozen=True)
class Training:
    """A policy whose held-out errors are known, by name; ``write`` puts it into a folder, if it is still there."""

    name: str
    errors: Mapping[str, float]
    write: Callable[[Path], bool]


def trainings_of(folder: Path) -> Iterator[Training]:
    """The training that a run's folder holds, or all those of a study's."""
    if (folder / TRIALS).is_dir():
        for kind in (TRIALS, FINALISTS):
            records = Records(folder, kind)
            for trial in records.trials():
                saved = next((result for result in reversed(trial.results) if result.checkpoint), None)
                if saved is not None and (errors := _errors(saved.metrics)):  # none where it was interrupted
                    name = f"{folder.name}/{kind}/{trial.number:03d} at {saved.samples_seen}"
                    yield Training(name, errors, partial(write_policy, trial, records))
    elif (folder / "policy").is_dir():
        yield Training(folder.name, held_out_errors(folder), lambda place: _link(folder / "policy", place))


def _link(policy: Path, place: Path) -> bool:
    place.symlink_to(policy.absolute())
    return True


def held_out_errors(run: Path) -> dict[str, float]:
    """The last evaluation's errors of a training, by name."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    scored = [row for row in rows if any(name.startswith("val/") for name in row)]
    if not scored:
        raise SystemExit(f"{run}: its metrics.jsonl has no evaluation")
    return _errors(scored[-1])


def _errors(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith("val/") and not name.endswith("_se")}


def acted(training: Training, instances: Sequence[int], picture_size: int) -> dict[str, float] | None:
    """The closed-loop scores of a training's policy; None where its state is gone."""
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy"
        if not training.write(policy):
            return None
        actor = load_actor(policy, torch.device("cpu"))
        return means(watch(ActorPolicy(actor), instances, picture_size=picture_size))


def correlation(errors: Sequence[float], scores: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Spearman's rank correlation with its bootstrap interval; NaN where one of the two is constant."""
    x, y = np.asarray(errors), np.asarray(scores)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(x), size=(RESAMPLES, len(x)))
    found = np.array([_spearman(x[places], y[places]) for places in drawn])
    known = found[np.isfinite(found)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return {"rho": _spearman(x, y), "low": float(low), "high": float(high), "runs": len(x)}


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)


def table(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each error and score that all runs have."""
    errors = sorted(set.intersection(*(set(row["errors"]) for row in rows.values())))
    found = []
    for error in errors:
        for score in SCORES:
            pairs = [(row["errors"][error], row["scores"][score]) for row in rows.values()]
            found.append({"error": error, "score": score, **correlation(*zip(*pairs, strict=True))})
    return found


def main(arguments: list[str] | None = None) -> int:
    """Watch what has not been watched, and print the correlations."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.predicts", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of trainings or studies")
    parser.add_argument("--instances", default="301-330")
    parser.add_argument("--picture-size", type=int, default=96)
    parser.add_argument("--out", type=Path, required=True, help="where scores are kept")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    instances = parse_instances(options.instances)
    kept: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {}
    rows = {}
    for training in (each for folder in options.runs for each in trainings_of(folder)):
        name = f"{training.name} on {options.instances}"
        if name not in kept:
            scores = acted(training, instances, options.picture_size)
            if scores is None:
                continue
            kept[name] = {"errors": dict(training.errors), "scores": scores}
            options.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        rows[name] = kept[name]
        print(name, json.dumps({score: round(kept[name]["scores"][score], 3) for score in SCORES}), flush=True)
    if len(rows) < 3:
        print(f"{len(rows)} runs: too few to correlate")
        return 1
    for row in table(rows):
        print(f"{row['error']:<32} {row['score']:<9} {row['rho']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Searchers under ASHA, compared on LCBench: regret against the epochs spent.

``python -m tests.benchmarks.searchers --seeds 20``, or ``--planted`` for curves that need no data.

Eight simulated workers; a trial is compared at its rungs, whose first is ``grace`` epochs and each
next ``reduction`` times the one before. Every run is one line of a file, so that a run of this
program that was stopped goes on where it was, and ``--table`` prints from what there is.
"""

import argparse
import contextlib
import itertools
import json
import logging
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna

from tests.benchmarks import methods
from tests.benchmarks.lcbench import EPOCHS, METRICS, SPACE, TASKS, Surrogate
from tests.benchmarks.planted import EPOCHS as PLANTED_EPOCHS
from tests.benchmarks.planted import FAMILIES, SPACES, Planted
from tests.benchmarks.planted import TASKS as PLANTED_TASKS
from tests.benchmarks.report import print_tables
from tests.benchmarks.simulator import Track, simulate
from tests.benchmarks.through_ray import search

GRACES, REDUCTIONS = (1, 3, 6), (3, 4)


def main() -> int:
    """Make the runs that are missing, and print the tables."""
    options = _options()
    surrogate: Surrogate | Planted
    if options.planted:
        surrogate = Planted()
    elif not (options.data / "model.onnx").is_file():
        print(f"skipped: no surrogate at {options.data}; name its folder by --data")
        return 0
    else:
        try:
            surrogate = Surrogate(options.data)
        except ImportError:
            print("error: onnxruntime is not installed; install the project's dev extra (make setup)", file=sys.stderr)
            return 2
    if options.ray and isinstance(surrogate, Surrogate):
        _through_ray(options, surrogate)
        return 0
    options.results.parent.mkdir(parents=True, exist_ok=True)
    chosen = dict.fromkeys(options.methods)
    for name in list(chosen):
        missing = methods.missing(name)
        if missing:
            print(f"{name} is left out: {missing}")
            del chosen[name]
    if not options.table:
        _run(options, surrogate, list(chosen))
    runs = [run for run in read(options.results) if _wanted(run, options, chosen)]
    print_tables(runs, options.budget)
    return 0


def rungs_of(grace: int, reduction: int, whole: int = EPOCHS) -> tuple[int, ...]:
    """The epochs at which trials are compared; the last is a whole trial."""
    levels = itertools.takewhile(lambda level: level < whole, (grace * reduction**k for k in itertools.count()))
    return (*levels, whole)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The runs of a file; a line that was cut off is left out."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)


def one_run(
    surrogate: Surrogate | Planted, make: Callable[..., Any], task: int, metric: str, rungs: Sequence[int],
    reduction: int, seed: int, budget: int, workers: int,
) -> Track:  # fmt: skip
    """One search, with values as the surrogate gives them."""
    mode = {**METRICS, **FAMILIES}[metric]
    return simulate(
        make(mode, rungs, reduction, seed, space=SPACE if metric in METRICS else SPACES[metric]),
        lambda params: surrogate.curve(task, metric, params, rungs),
        rungs,
        budget,
        workers,
        1.0 if mode == "min" else -1.0,
    )


def _through_ray(options: argparse.Namespace, surrogate: Surrogate) -> None:
    task, metric, reduction = options.tasks[0], options.metrics[0], options.reductions[0]
    value, epochs = search(
        options.data.absolute(), task, metric, rungs_of(options.graces[0], reduction), reduction, 0, options.ray,
        options.workers,
    )  # fmt: skip
    regret = surrogate.scale(task, metric).regret(value)
    print(f"task {task}, {metric}: {options.ray} trials through Ray, {epochs} epochs, regret {regret:.3f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.searchers", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/lcbench"), help="folder of the surrogate")
    parser.add_argument("--planted", action="store_true", help="curves with a planted optimum in place of LCBench")
    parser.add_argument("--results", type=Path, help="file of runs (default: runs/benchmarks/searchers.jsonl; planted: "
                        "planted.jsonl)")  # fmt: skip
    parser.add_argument("--methods", nargs="+", choices=methods.NAMES, metavar="NAME",
                        help="of " + ", ".join(methods.NAMES))  # fmt: skip
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tasks", type=int, nargs="+", metavar="TASK")
    parser.add_argument("--metrics", nargs="+", choices=[*METRICS, *FAMILIES], metavar="METRIC",
                        help=f"of {', '.join(METRICS)}; planted: {', '.join(FAMILIES)}")  # fmt: skip
    parser.add_argument("--graces", type=int, nargs="+", default=list(GRACES), metavar="EPOCHS")
    parser.add_argument("--reductions", type=int, nargs="+", default=list(REDUCTIONS), metavar="FACTOR")
    parser.add_argument("--subset", type=int, metavar="N", help="the first N tasks only")
    parser.add_argument("--budget", type=int, default=2000, help="epochs over all trials of a run")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--ray", type=int, metavar="TRIALS", help="one search of so many trials through Ray's Tuner")
    parser.add_argument("--table", action="store_true", help="print the tables of the runs there are, make none")
    options = parser.parse_args()
    options.results = options.results or Path(f"runs/benchmarks/{'planted' if options.planted else 'searchers'}.jsonl")
    options.methods = options.methods or list(methods.CONDITIONAL if options.planted else methods.COMPARED)
    options.tasks = (options.tasks or list(PLANTED_TASKS if options.planted else TASKS))[: options.subset]
    options.metrics = options.metrics or list(FAMILIES if options.planted else METRICS)
    options.whole = PLANTED_EPOCHS if options.planted else EPOCHS
    return options


def _key(run: dict[str, Any]) -> tuple:
    names = ("method", "task", "metric", "grace", "reduction", "seed", "budget", "workers")
    return tuple(run[name] for name in names)


def _wanted(run: dict[str, Any], options: argparse.Namespace, chosen: Any) -> bool:
    return (
        run["method"] in chosen
        and run["task"] in options.tasks
        and run["metric"] in options.metrics
        and run["grace"] in options.graces
        and run["reduction"] in options.reductions
        and run["seed"] < options.seeds
        and (run["budget"], run["workers"]) == (options.budget, options.workers)
    )


def _run(options: argparse.Namespace, surrogate: Surrogate | Planted, chosen: list[str]) -> None:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    done = {_key(run) for run in read(options.results)}
    scales = {(task, metric): surrogate.scale(task, metric) for task in options.tasks for metric in options.metrics}
    cells = list(itertools.product(options.graces, options.reductions, options.metrics, options.tasks))
    problems = list(itertools.product(range(options.seeds), cells))
    random.Random(0).shuffle(problems)  # so that a run that is stopped leaves a fair sample of seeds and problems
    with options.results.open("a", encoding="utf-8") as file:
        for (seed, (grace, reduction, metric, task)), name in itertools.product(problems, chosen):
            run = {"method": name, "task": task, "metric": metric, "grace": grace, "reduction": reduction, "seed": seed}
            run |= {"budget": options.budget, "workers": options.workers}
            if _key(run) in done:
                continue
            started, scale = time.monotonic(), scales[task, metric]
            track = one_run(
                surrogate, methods.NAMES[name], task, metric, rungs_of(grace, reduction, options.whole), reduction,
                seed, options.budget, options.workers,
            )  # fmt: skip
            run |= {"trials": track.trials, "seconds": round(time.monotonic() - started, 2)}
            for steps in ("chosen", "whole", "seen"):
                run[steps] = [(spent, round(scale.regret(value), 5)) for spent, value in getattr(track, steps)]
            file.write(json.dumps(run) + "\n")
            file.flush()


if __name__ == "__main__":
    sys.exit(main())

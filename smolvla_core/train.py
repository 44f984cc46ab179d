"""The training loop of one trial, and ``python -m smolvla_core.train CONFIG.yaml``."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Protocol

import numpy as np
from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smolvla_core.checkpoint import export_policy, load_state, read_state, refuse_to_replace, save_state
from smolvla_core.command import FAILED, OK, Parser, answer, refuse_unwritable
from smolvla_core.compiled import refuse_without_compiler
from smolvla_core.config import TrialConfig, dotted_keys
from smolvla_core.config_file import load_config
from smolvla_core.errors import DataError, DivergedError, InfeasibleError
from smolvla_core.evaluate import EpisodeErrors
from smolvla_core.learner import Learner, StepStats
from smolvla_core.schedule import learning_rate
from smolvla_core.trial import Trial, prepare

Save = Callable[[Path], None]


@dataclass(frozen=True)
class Snapshot:
    """A trial at a report: what a report is handed as ``save``.

    Attributes:
        learner: the trial.
        episodes: the report's errors by episode; empty without an evaluation.
    """

    learner: Learner
    episodes: EpisodeErrors = field(default_factory=dict)

    def __call__(self, folder: Path) -> None:
        """Save the trial's state."""
        save_state(self.learner, folder)


_LOG = logging.getLogger(__name__)


class Report(Protocol):
    """Receives a trial's metrics; may call ``save(folder)`` to keep the trial's state."""

    def __call__(self, metrics: Mapping[str, float], save: Snapshot) -> None:
        """Take one report."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    metrics: dict[str, float]
    """The last evaluation's report."""
    samples_seen: int
    step: int
    stopped: bool
    """Whether ``stop`` ended it before its budget."""


def train(
    config: TrialConfig,
    report: Report | None = None,
    restore: Path | None = None,
    stop: Callable[[], bool] | None = None,
    report_now: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train one trial to its budget of samples.

    Args:
        config: the trial.
        report: called at each of ``eval.at`` (the first step at or past it) and at the end, with
            training and validation metrics, and every ``runtime.log_every_samples`` between them
            with the training metrics alone. With ``eval.test`` the end's report has test metrics too.
        restore: a state saved by an earlier run of the same configuration; training continues to
            the same numbers as if it had not been interrupted.
        stop: asked after every step; true ends the run with a last report.
        report_now: asked after every step; true makes a report with the training metrics there.

    Raises:
        UserError: bad input, before the first step; ``DamagedStateError`` where ``restore`` is damaged.
        InfeasibleError: not even one sample at a time fits into the memory.
        DivergedError: the loss or a gradient is not finite, before the optimizer steps.
    """
    trial = prepare(config)
    learner = trial.learner
    if config.runtime.compile:
        refuse_without_compiler(learner.device)
    for line in (learner.forward_line, *trial.cache_lines):
        _LOG.info(line)
    if restore is not None:
        load_state(learner, restore)
    return _loop(config, trial, report or _ignore, stop or _never, report_now or _never)


def _loop(
    config: TrialConfig, trial: Trial, report: Report, stop: Callable[[], bool], report_now: Callable[[], bool]
) -> TrainResult:
    learner, budget = trial.learner, config.optim.samples
    meter = _Meter(learner.samples_seen)
    evaluations = sorted({at for at in (*config.eval.at, budget) if learner.samples_seen < at <= budget})
    metrics: dict[str, float] = {}
    stopped = False
    while learner.samples_seen < budget and not stopped:
        count = min(config.optim.batch_size, budget - learner.samples_seen)
        batch = trial.training(learner.samples_seen, count)
        meter.add(learner.step(batch, learning_rate(config.optim, learner.samples_seen)))
        stopped = stop()
        due = bool(evaluations) and learner.samples_seen >= evaluations[0]
        if due:
            evaluations = [at for at in evaluations if at > learner.samples_seen]
            metrics, found = meter.flush(learner), [trial.scores()]
            if config.eval.test and learner.samples_seen >= budget:
                found.append(trial.scores("test"))
            episodes: EpisodeErrors = {}
            for evaluation in found:
                metrics, episodes = metrics | evaluation.metrics, episodes | evaluation.episodes
            report(metrics, Snapshot(learner, episodes))
            meter.restart_clock()
        elif stopped or report_now() or meter.samples(learner) >= config.runtime.log_every_samples:
            report(meter.flush(learner), Snapshot(learner))
    return TrainResult(metrics, learner.samples_seen, learner.step_count, stopped)


class _Meter:
    """Means of what the steps measured since the last report."""

    def __init__(self, samples_seen: int):
        self.start_samples = samples_seen
        self.steps: list[StepStats] = []
        self.started = time.monotonic()

    def add(self, stats: StepStats) -> None:
        self.steps.append(stats)

    def samples(self, learner: Learner) -> int:
        return learner.samples_seen - self.start_samples

    def flush(self, learner: Learner) -> dict[str, float]:
        seconds = max(time.monotonic() - self.started, 1e-9)
        metrics = {
            "samples_seen": learner.samples_seen,
            "step": learner.step_count,
            "train/loss": float(np.mean([s.loss for s in self.steps])),
            "train/grad_norm": float(np.mean([s.grad_norm for s in self.steps])),
            **self._localization(),
            "train/lr": self.steps[-1].lr,
            "train/samples_per_s": self.samples(learner) / seconds,
        }
        self.start_samples, self.steps = learner.samples_seen, []
        self.restart_clock()
        return metrics

    def _localization(self) -> dict[str, float]:
        found = [stats.localization for stats in self.steps if stats.localization is not None]
        return {"train/localization_loss": float(np.mean(found))} if found else {}

    def restart_clock(self) -> None:
        self.started = time.monotonic()


def _ignore(metrics: Mapping[str, float], save: Save) -> None:
    """The report nobody reads."""


def _never() -> bool:
    return False


def main(arguments: list[str] | None = None) -> int:
    """Run one training without a search; see ``--help``."""
    parser = Parser(prog="python -m smolvla_core.train", description=__doc__)
    parser.add_argument("config", help="a trial's YAML, such as the one a search prints for its best trial")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. optim.batch_size=32")
    parser.add_argument("--out", default="runs/train", type=Path, help="folder of the results (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUT")
    options = parser.parse_args(arguments)

    def command() -> int:
        try:
            return _run(load_config(options.config, options.set), options.out, options.resume)
        except (DivergedError, InfeasibleError) as error:
            print(f"{'diverged' if isinstance(error, DivergedError) else 'out of memory'}: {error}", file=sys.stderr)
            return FAILED

    return answer(command, f"interrupted; continue with: --out {options.out} --resume")


def _run(config: TrialConfig, out: Path, resume: bool) -> int:
    state, log = out / "state", out / "metrics.jsonl"
    if resume:
        _refuse_another(state, TrialConfig.from_dict(read_state(state)["config"]), config)
        _drop_reports_after(log, read_state(state)["samples_seen"])
    elif state.exists():
        raise DataError(f"{out}: holds a run already; give another --out, or --resume to continue it")
    refuse_unwritable("--out", out)
    refuse_to_replace(out / "policy")
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    console = Console(stderr=True)
    with _progress(console) as bar, _printed_on(console):
        task = bar.add_task("training", total=config.optim.samples)

        def report(metrics: Mapping[str, float], save: Save) -> None:
            save(state)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(metrics)) + "\n")
            bar.update(task, completed=int(metrics["samples_seen"]))
            bar.console.print(_line(metrics), highlight=False, soft_wrap=True)

        result = train(config, report, restore=state if resume else None)
    export_policy(state, out / "policy")
    print(json.dumps({**result.metrics, "policy": str(out / "policy")}, indent=2))
    return OK


_CHANGES_NUMBERS = ("runtime.seed", "runtime.precision", "runtime.compile")


def _refuse_another(state: Path, saved: TrialConfig, config: TrialConfig) -> None:
    """Refuse to go on with another configuration; where and how it runs may differ."""
    for key in dotted_keys():
        learns_the_same = key.startswith("runtime.") and key not in _CHANGES_NUMBERS
        if not learns_the_same and attrgetter(key)(saved) != attrgetter(key)(config):
            raise DataError(f"{state}: was saved with another {key}; resume with the same YAML and --set")


def _drop_reports_after(log: Path, samples_seen: int) -> None:
    """Forget reports that a crash wrote after the state that is resumed from."""
    if log.is_file():
        kept = [line for line in log.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in kept if json.loads(line)["samples_seen"] <= samples_seen]
        log.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def _printed_on(console: Console) -> Iterator[None]:
    """Print what :func:`train` logs about a run above its progress bar."""
    handler = RichHandler(
        console=console, show_time=False, show_level=False, show_path=False, highlighter=NullHighlighter()
    )
    level, propagates = _LOG.level, _LOG.propagate
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.INFO)
    _LOG.propagate = False  # a root handler that a library installed would print it again
    try:
        yield
    finally:
        _LOG.setLevel(level)
        _LOG.propagate = propagates
        _LOG.removeHandler(handler)


def _line(metrics: Mapping[str, float]) -> str:
    parts = [f"samples {int(metrics['samples_seen'])}"]
    parts += [f"{name} {value:.4g}" for name, value in metrics.items() if "/" in name]
    return "  ".join(parts)


if __name__ == "__main__":
    sys.exit(main())

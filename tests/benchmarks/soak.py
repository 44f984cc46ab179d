"""Trials at a high rate on several Ray nodes, of which processes and whole nodes are killed at random.

``python -m tests.benchmarks.soak --minutes 30``

The trials are stubs that report a formula; each kill takes a trial's process or a node with all that runs
on it, and a killed node comes back. One study runs until the time is up, as a driver has one, and is then resumed
without kills, which ends the trials that were running or waiting. What must hold: every trial has ended, and has the
very values of its formula at each report; MLflow has one run of each, with every value once; the driver's memory
does not grow. Exit code 1 where a trial was lost or changed, or a run is doubled.
"""

import argparse
import logging
import os
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray

from tests.cluster import Nodes, nodes
from tests.processes import kill, parent_of, process_ids
from tests.stub import METRIC, score, stub_spec, stub_trainable
from tune import heap
from tune.records import Records, TrialRecord
from tune.spec import SearchSpec
from tune.study import Study

WORKERS, AT_ONCE, MOST_TRIALS = 3, 6, 10_000
KILL_EVERY_S, NODE_SHARE, SECONDS_A_REPORT = 6.0, 0.15, 0.2


@dataclass
class Tally:
    """What was seen."""

    trials: int = 0
    reports: int = 0
    restarts: int = 0
    given_up: int = 0
    open: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    killed_trials: int = 0
    killed_nodes: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(minutes since the start, the driver's resident megabytes), once a minute."""


def main(arguments: list[str] | None = None) -> int:
    """Run a study until the time is up, end it, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--node-share", type=float, default=NODE_SHARE, help="of the kills (default %(default)s)")
    options = parser.parse_args(arguments)
    logging.getLogger("ray").setLevel(logging.ERROR)
    heap.keep_small()  # as a study does before it starts Ray, which runs here already
    tally, began = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        (Path(folder) / "slow").write_text(str(SECONDS_A_REPORT))
        os.environ["STUB_FAULTS"] = folder  # which the nodes' processes inherit
        _soak(Path(folder), tally, options)
    print("\n".join(_summary(tally, (time.monotonic() - began) / 60)), flush=True)
    return int(bool(tally.lost or tally.doubled))


def _soak(folder: Path, tally: Tally, options: argparse.Namespace) -> None:
    run_dir, stop = folder / "study", threading.Event()
    with nodes(WORKERS, cpus=AT_ONCE // WORKERS) as cluster:
        killer = threading.Thread(target=_kill_at_random, args=(cluster, tally, options, stop), daemon=True)
        killer.start()
        _run(run_dir, tally, cluster, {"trials": MOST_TRIALS, "hours": options.minutes / 60})
        stop.set()
        killer.join()
        recorded = Records(run_dir).trials()
        tally.open, begun = sum(trial.outcome is None for trial in recorded), max(t.number for t in recorded) + 1
        _run(run_dir, tally, cluster, {"trials": begun}, resume=True)
    _judge(run_dir, tally, begun)


def _run(run_dir: Path, tally: Tally, cluster: Nodes, budget: dict[str, float], resume: bool = False) -> None:
    """Run the study, bring killed nodes back, and sample the memory."""
    began = time.monotonic()

    def say(line: str) -> None:
        tally.restarts += "restarts: " in line
        tally.trials += "started   " in line
        if not resume and (time.monotonic() - began) / 60 >= len(tally.memory) + 1:
            tally.memory.append(((time.monotonic() - began) / 60, _resident_mb()))
            print(_line(tally), flush=True)
        if len(cluster.workers) < WORKERS:
            cluster.add()

    Study(_spec(run_dir.parent, budget), run_dir, trainable=stub_trainable, say=say).run(resume)


def _spec(folder: Path, budget: dict[str, float]) -> SearchSpec:
    tracking = {"uri": f"sqlite:///{folder / 'mlflow.db'}", "experiment": "soak"}
    return stub_spec(folder, budget=budget, max_concurrent=AT_ONCE, tracking=tracking)


def _judge(run_dir: Path, tally: Tally, begun: int) -> None:
    """Count what is wrong with the trials 0 to ``begun`` - 1."""
    recorded = {trial.number: trial for trial in Records(run_dir).trials()}
    tally.trials = len(recorded)
    for number in range(begun):
        if fault := _fault_of(recorded.get(number)):
            tally.lost.append(f"trial {number}: {fault}")
    tally.reports = sum(len(trial.results) for trial in recorded.values())
    outcomes = [trial.outcome for trial in recorded.values() if trial.outcome is not None]
    tally.given_up = sum(outcome.state == "failed" for outcome in outcomes)
    spec = _spec(run_dir.parent, {"trials": begun})
    tally.doubled = _faults_in_mlflow(spec.tracking.uri, spec.experiment, recorded)


def _fault_of(trial: TrialRecord | None) -> str | None:
    """What is wrong with a trial's record; None where nothing is."""
    if trial is None or trial.outcome is None:
        return "no record" if trial is None else "has not ended"
    samples = [result.samples_seen for result in trial.results]
    if samples != sorted(set(samples)):
        return f"reports at {samples}"
    point = (trial.params["weighting.alpha"], trial.params["optim.lr"], trial.params["optim.batch_size"])
    if trial.values(METRIC) != {seen: score(*point, seen) for seen in samples}:
        return "other values than its formula's"
    if trial.outcome.state == "complete" and samples != [100, 300, 900]:
        return f"complete after reports at {samples}"
    # a process that dies again and again without a report in between is given up, and says so
    died = trial.outcome.state == "failed" and "its process died" in (trial.outcome.reason or "")
    return f"failed: {trial.outcome.reason}" if trial.outcome.state == "failed" and not died else None


def _faults_in_mlflow(uri: str, experiment: str, recorded: dict[int, TrialRecord]) -> list[str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id], max_results=MOST_TRIALS)
    numbers = sorted(int(run.data.tags["trial.number"]) for run in runs if "trial.number" in run.data.tags)
    faults = [] if numbers == sorted(recorded) else [f"MLflow has runs of trials {numbers}"]
    for run in runs:
        number = run.data.tags.get("trial.number")
        if number is not None:
            history = [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, METRIC)]
            if sorted(history) != sorted(recorded[int(number)].values(METRIC).items()):
                faults.append(f"trial {number} has {len(history)} values in MLflow")
    return faults


def _kill_at_random(cluster: Nodes, tally: Tally, options: argparse.Namespace, stop: threading.Event) -> None:
    """Now and then a trial's process, and seldom a node, unless another is still to come back."""
    draw = random.Random(options.seed)
    while not stop.wait(draw.expovariate(1 / KILL_EVERY_S)):
        if draw.random() < options.node_share:
            if len(cluster.workers) == WORKERS:
                cluster.kill(draw.choice(cluster.workers))
                tally.killed_nodes += 1
            continue
        raylets = {node.raylet for node in cluster.workers} - {0}
        running = [pid for pid in process_ids() if parent_of(pid) in raylets and _runs_a_trial(pid)]
        tally.killed_trials += bool(running) and kill(draw.choice(running))


def _runs_a_trial(pid: int) -> bool:
    """Ray renames a worker's process after the actor that it is."""
    try:
        return b"ImplicitFunc" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _line(tally: Tally) -> str:
    minutes, memory = tally.memory[-1]
    return (
        f"{minutes:5.1f} min  {tally.trials} trials  killed {tally.killed_trials} trials, {tally.killed_nodes} nodes  "
        f"driver {memory:.0f} MB"
    )


def _summary(tally: Tally, minutes: float) -> list[str]:
    lines = [
        f"minutes              {minutes:.1f}",
        f"Ray                  {ray.__version__}, {WORKERS} nodes, {AT_ONCE} trials at once",
        f"trials               {tally.trials} ({tally.reports} reports, {tally.trials / minutes:.0f} a minute)",
        f"killed               {tally.killed_trials} trials, {tally.killed_nodes} nodes; {tally.restarts} restarts",
        f"given up             {tally.given_up} (died three times without a report in between, and recorded so)",
        f"open                 {tally.open} when the time was up, ended by a resumed study",
        f"lost or changed      {len(tally.lost)}",
        f"wrong in MLflow      {len(tally.doubled)}",
        *(f"  {fault}" for fault in (*tally.lost, *tally.doubled)[:20]),
    ]
    if len(tally.memory) > 2:
        half = np.array(tally.memory[len(tally.memory) // 2 :])  # what is loaded once is loaded by then
        slope = np.polyfit(half[:, 0], half[:, 1], 1)[0]
        at = [tally.memory[0], tally.memory[len(tally.memory) // 2], tally.memory[-1]]
        lines.append(
            f"driver's memory      {', '.join(f'{mb:.0f} MB after {minute:.0f} min' for minute, mb in at)}; "
            f"{slope:+.2f} MB a minute in the second half"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())

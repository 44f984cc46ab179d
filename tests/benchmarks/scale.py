"""What a trial costs the service itself, at 1 to 1,000 trials.

``python -m tests.benchmarks.scale --trials 1 10 100 1000``

The trials are stubs that report a formula at every rung and save a state of a few bytes: what is
measured is Ray, the searcher, ASHA, the records, the checkpoints' bookkeeping and MLflow, which is on
(SQLite). Each size is a study in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """Run a study of each size, and print what it cost."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--study", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.study:
        print(json.dumps(measure(options.study)))
        return 0
    print(
        "trials  reports  wall s  wall ms a trial  wall ms a report  driver's CPU ms a report  driver's memory  folder"
    )
    for trials in options.trials:
        command = [sys.executable, "-m", "tests.benchmarks.scale", "--study", str(trials)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{trials:6}  {found['reports']:7}  {found['wall']:6.1f}  {1e3 * found['wall'] / trials:15.0f}"
            f"  {1e3 * found['wall'] / found['reports']:16.1f}  {1e3 * found['cpu'] / found['reports']:24.1f}"
            f"  {found['memory'] / 1e6:12.0f} MB  {found['disk'] / 1e6:.1f} MB",
            flush=True,
        )
    return 0


def measure(trials: int) -> dict[str, Any]:
    """One study of stubs: seconds from the first trial's start to the last's end, and the driver's CPU seconds."""
    from tests.stub import stub_spec, stub_trainable
    from tune.ray_session import ray_session
    from tune.records import Records
    from tune.study import Study

    with tempfile.TemporaryDirectory() as folder, ray_session():
        run_dir = Path(folder) / "study"
        changes = {"budget": {"trials": trials}, "max_concurrent": None, "tracking": {"enabled": True}}
        study = Study(stub_spec(Path(folder), **changes), run_dir, trainable=stub_trainable, say=lambda line: None)
        used, began = time.process_time(), time.perf_counter()
        summary = study.run()
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        assert sum(summary.trials.values()) == trials, summary.trials
        return {
            "wall": wall,
            "cpu": cpu,
            "reports": sum(len(trial.results) for trial in Records(run_dir).trials()),
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "disk": sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()),
        }


if __name__ == "__main__":
    sys.exit(main())

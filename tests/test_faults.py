"""Faults that are injected for real, and what is left after them; ``make test-faults`` runs those that take long.

``docs/faults.md`` lists them all, also those that other modules test.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smolvla_core.train import train
from tests.cluster import nodes
from tests.core_fixtures import tiny_trial
from tests.mlflow_truth import assert_told_once
from tests.processes import kill
from tests.stub import METRIC, score, stub_spec, stub_trainable
from tests.test_study import driver, story, wait_for_reports
from tune.records import Records
from tune.space import shared_values, to_trial_config
from tune.spec import SearchSpec
from tune.study import Study
from tune.trainable import smolvla_trainable

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.faults, pytest.mark.slow]


def stub_study(tmp_path: Path, name: str, resume: bool = False, say=lambda line: None, **changes):
    """A study of stubs in this process."""
    spec = stub_spec(tmp_path, **changes)
    summary = Study(spec, tmp_path / name, "study: stub", trainable=stub_trainable, say=say).run(resume)
    return summary, Records(tmp_path / name).trials()


def slowly(tmp_path: Path, seconds: float) -> Path:
    folder = tmp_path / "slowly"
    folder.mkdir(exist_ok=True)
    (folder / "slow").write_text(str(seconds))
    return folder


def real_spec(root: Path, cache_dir: Path, storage: Path, samples: int = 160, **asha) -> SearchSpec:
    """One trial of a real policy, so small that it trains in seconds."""
    trial = tiny_trial(root, cache_dir, runtime__threads=1).to_dict()
    del trial["eval"]["at"]
    trial["optim"] |= {"samples": samples}
    return SearchSpec.from_dict(
        {
            "study": "real",
            "trial": trial,
            "search": {"weighting.alpha": {"type": "float", "low": 0.0, "high": 2.0}},
            "warm_start": {"seed_baseline": {"weighting.alpha": 0.5}},
            "budget": {"trials": 1},
            "asha": {"grace_samples": 40, "reduction_factor": 2} | asha,
            "max_concurrent": 1,
            "tracking": {"enabled": False},
            "storage": str(storage),
        }
    )


def uninterrupted(spec: SearchSpec) -> dict[int, float]:
    """What the one trial reports where nothing happens to it."""
    config = to_trial_config(spec, {"weighting.alpha": 0.5}).with_values(shared_values(spec))
    found = {}

    def report(metrics, save):
        if METRIC in metrics:
            found[int(metrics["samples_seen"])] = metrics[METRIC]

    train(config, report)
    return found


def test_a_killed_node_costs_a_trial_nothing_but_time(generic_root, cache_dir, tmp_path):
    spec, lines, killed = real_spec(generic_root, cache_dir, tmp_path), [], []
    run_dir = tmp_path / "run"
    with nodes(workers=2) as cluster:

        def say(line: str) -> None:
            lines.append(line)
            if " samples   " in line and not killed:
                (trial,) = Records(run_dir).trials()
                node = cluster.node_of(trial.results[-1].pid)
                killed.append(trial.results[-1])
                cluster.kill(node)

        summary = Study(spec, run_dir, trainable=smolvla_trainable, say=say).run()
    assert summary.state == "complete"
    (trial,) = Records(run_dir).trials()
    assert any("restarts: its process died" in line for line in lines), lines
    assert killed[0].samples_seen == 40
    assert len({result.pid for result in trial.results}) == 2
    assert trial.values(METRIC) == uninterrupted(spec)


@pytest.mark.usefixtures("one_ray")
def test_killed_trials_go_on_however_often_as_long_as_they_advance(tmp_path, monkeypatch):
    """Ray alone would give a trial up after so many deaths, however far it came between them."""
    monkeypatch.setattr("tune.tuner.RESTARTS", 1)
    run_dir, killed = tmp_path / "run", []

    def kill_after_each_report(line: str) -> None:
        if " samples   " not in line or "900 samples" in line:
            return
        pid = Records(run_dir).trials()[0].results[-1].pid
        assert kill(pid)
        killed.append(pid)

    summary, (trial,) = stub_study(tmp_path, "run", say=kill_after_each_report, budget={"trials": 1})
    assert summary.state == "complete"
    assert len(set(killed)) == 2
    assert trial.values(METRIC) == {samples: score(0.0, 1e-4, 8, samples) for samples in (100, 300, 900)}


def test_a_driver_that_is_killed_again_and_again_loses_repeats_and_changes_no_finished_result(tmp_path):
    faults = slowly(tmp_path, 0.3)
    changes = {
        "tracking": {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}", "experiment": "stub"},
        "budget": {"trials": 24},
        "resources": {"cpus": 0.5},
        "max_concurrent": 4,
    }
    ended: list = []
    for reports, rest in ((8, []), (22, ["resume"]), (36, ["resume"])):
        process = driver(tmp_path, changes, *rest, faults=faults)
        wait_for_reports(tmp_path / "run", reports, process)
        process.kill()
        process.wait()
        left = story([trial for trial in Records(tmp_path / "run").trials() if trial.outcome is not None])
        assert [one for one in left if one in ended] == ended
        ended = left
    assert ended
    process = driver(tmp_path, changes, "resume")
    assert process.wait(timeout=300) == 0
    trials = Records(tmp_path / "run").trials()
    assert [trial.number for trial in trials] == list(range(24))
    assert [one for one in story(trials) if one in ended] == ended
    for trial in trials:
        samples = [result.samples_seen for result in trial.results]
        assert samples == sorted(set(samples))
        point = (trial.params["weighting.alpha"], trial.params["optim.lr"], trial.params["optim.batch_size"])
        assert trial.values(METRIC) == {seen: score(*point, seen) for seen in samples}
    assert_told_once(changes["tracking"]["uri"], trials)


DRIVER = """
import sys
from pathlib import Path
from smolvla_core.config_values import load_yaml
from tune.spec import SearchSpec
from tune.study import Study
from tune.trainable import smolvla_trainable
spec = SearchSpec.from_dict(load_yaml(Path(sys.argv[1]).read_text(), "spec"))
summary = Study(spec, Path(sys.argv[2]), trainable=smolvla_trainable).run(resume=len(sys.argv) > 3)
sys.exit(0 if summary.state == "complete" else 1)
"""


def test_a_spot_notice_leaves_the_state_of_that_moment_and_the_study_goes_on_from_it(generic_root, cache_dir, tmp_path):
    spec, run_dir = real_spec(generic_root, cache_dir, tmp_path, samples=4000, reduction_factor=100), tmp_path / "run"
    (tmp_path / "spec.yaml").write_text(spec.to_yaml())
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "spec.yaml"), str(run_dir)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_for_reports(run_dir, 1, process)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert time.monotonic() - sent < 90
    assert "Traceback" not in output
    (trial,) = Records(run_dir).trials()
    assert trial.outcome is None
    last = trial.results[-1]
    assert METRIC not in last.metrics  # between two rungs
    assert last.checkpoint == trial.checkpoint

    done = subprocess.run([*command, "resume"], cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"continues from {last.samples_seen:,} samples" in done.stdout
    (trial,) = Records(run_dir).trials()
    assert trial.values(METRIC) == uninterrupted(spec)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MB."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


COMMAND = """
import sys
from smolvla_core.command import answer
from tests.mlflow_truth import assert_told_once
from tests.stub import stub_spec, stub_trainable
from tune.study import Study
from pathlib import Path
import json
def command():
    spec = stub_spec(Path(sys.argv[1]), **json.loads(sys.argv[3]))
    summary = Study(spec, Path(sys.argv[2]), trainable=stub_trainable).run(resume=len(sys.argv) > 4)
    print(summary.reason or "")
    return 0 if summary.state == "complete" else 1
sys.exit(answer(command))
"""


def test_a_full_disk_ends_a_study_in_one_line_and_it_goes_on_once_there_is_room(tmp_path, small_disk):
    faults = slowly(tmp_path, 0.1)
    run_dir, changes = small_disk / "run", json.dumps({"budget": {"trials": 8}})
    command = [sys.executable, "-c", COMMAND, str(small_disk), str(run_dir), changes]
    environment = os.environ | {"STUB_FAULTS": str(faults)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_reports(run_dir, 4, process)
    fill(small_disk / "filler")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "the disk is full" in output + errors
    assert "Traceback" not in output + errors
    (small_disk / "filler").unlink()
    ended = story([trial for trial in Records(run_dir).trials() if trial.outcome is not None])
    assert all(state in ("complete", "pruned") for *_, state in ended)

    del environment["STUB_FAULTS"]
    done = subprocess.run([*command, "resume"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = story(Records(run_dir).trials())
    assert found[: len(ended)] == ended
    with_room = [sys.executable, "-c", COMMAND, str(tmp_path), str(tmp_path / "roomy"), changes]
    assert subprocess.run(with_room, cwd=ROOT, env=environment, capture_output=True, timeout=300).returncode == 0
    assert found == story(Records(tmp_path / "roomy").trials())

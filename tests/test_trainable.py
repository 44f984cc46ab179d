"""The public trainable in a ``Tuner`` written by hand, as a user would who has a search of their own."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray import tune as ray_tune

from smolvla_core.checkpoint import STATE_FILE, TENSORS_FILE, export_policy, read_state
from smolvla_core.errors import ConfigError, DivergedError, InfeasibleError
from smolvla_core.train import train
from tests.core_fixtures import tiny_trial
from tune.notice import SAVE_EVERY_S, Listener, _listens_to
from tune.ray_session import ray_session
from tune.trainable import CURVE, EPISODES, STATE, failure_reason, reporting_failures, smolvla_trainable, trial_config

METRIC = "val/critical_action_mse"


def test_dotted_keys_win_over_sections():
    config = trial_config({"data": {"train": [{"root": "/d"}]}, "optim": {"lr": 1.0}, "optim.lr": 0.5})
    assert config.optim.lr == 0.5
    with pytest.raises(ConfigError, match=r"optim\.lrr: unknown key; did you mean 'optim\.lr'"):
        trial_config({"data": {"train": [{"root": "/d"}]}, "optim.lrr": 0.5})


def test_the_reason_of_a_failure_is_one_line():
    assert failure_reason(DivergedError("loss is nan\nmore")) == "diverged: loss is nan"
    assert failure_reason(MemoryError()).startswith("out of memory")
    assert failure_reason(InfeasibleError("not even one")).startswith(
        "out of memory: not even one; give each trial more"
    )
    assert failure_reason(ConfigError("optim.lr: wrong")) == "optim.lr: wrong"
    assert failure_reason(ZeroDivisionError("division by zero")) == "ZeroDivisionError: division by zero"


class Told:
    """Stands in for Ray: hands a trial a checkpoint, and keeps its reports and their states."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder, self.reports, self.start_from = folder, [], None
        monkeypatch.setattr("tune.trainable.ray_tune.report", self.report)
        monkeypatch.setattr("tune.trainable.ray_tune.get_checkpoint", lambda: self.start_from)

    def report(self, metrics, checkpoint):
        self.reports.append(metrics)
        shutil.copytree(Path(checkpoint.path), self.state(metrics["samples_seen"]).parent)

    def state(self, samples: int) -> Path:
        return self.folder / f"{len(self.reports)}-{samples}" / STATE

    def run(self, config, start_from: Path | None = None) -> list[dict]:
        self.reports.clear()
        self.start_from = ray_tune.Checkpoint(start_from.parent) if start_from else None
        smolvla_trainable(config)
        return list(self.reports)

    @staticmethod
    def values(reports) -> dict[int, float]:
        return {report["samples_seen"]: report[METRIC] for report in reports if METRIC in report}


def test_upon_its_drivers_notice_a_trial_saves_its_state_and_goes_on_from_there(
    generic_root, cache_dir, tmp_path, monkeypatch
):
    config = tiny_trial(generic_root, cache_dir, eval__at=[12]).to_dict()
    whole = Told(tmp_path / "whole", monkeypatch).run(config)
    assert [report["samples_seen"] for report in whole] == [12, 16]
    looks = iter([False, True])
    monkeypatch.setattr("tune.notice._is_given", lambda key: next(looks))
    monkeypatch.setattr("tune.notice.LOOK_EVERY_S", 0.0)
    told = Told(tmp_path / "told", monkeypatch)
    with listening():
        reports = told.run(config)
    assert [report["samples_seen"] for report in reports] == [8, 12, 16]
    assert METRIC not in reports[0]
    resumed = Told(tmp_path / "resumed", monkeypatch).run(config, next((tmp_path / "told").glob("1-8")) / STATE)
    assert told.values(resumed) == told.values(reports) == told.values(whole)


def test_a_state_is_saved_now_and_then_also_without_a_notice(monkeypatch):
    monkeypatch.setattr("tune.notice._is_given", lambda key: False)
    clock = 1000.0
    monkeypatch.setattr("tune.notice.time.monotonic", lambda: clock)
    with listening():
        listener = Listener()
    clock += SAVE_EVERY_S - 1
    assert not listener()
    clock += 2
    assert listener()
    listener.saved()
    clock += SAVE_EVERY_S - 1
    assert not listener()
    monkeypatch.setattr("tune.notice._is_given", lambda key: True)
    clock += 2
    assert listener()


@pytest.mark.parametrize("harm", ["cut", "zeroed", "gone", "half"])
def test_a_state_that_was_half_written_is_not_taken_and_the_trial_ends_the_same(
    generic_root, cache_dir, tmp_path, monkeypatch, harm
):
    config = tiny_trial(generic_root, cache_dir, eval__at=[8]).to_dict()
    told = Told(tmp_path / harm, monkeypatch)
    whole = told.run(config)
    state = next((tmp_path / harm).glob("1-8")) / STATE
    tensors = state / TENSORS_FILE
    if harm == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-1000])
    elif harm == "zeroed":
        (state / STATE_FILE).write_bytes(bytes(100))
    elif harm == "half":
        (state / STATE_FILE).write_text((state / STATE_FILE).read_text()[:100])
    else:
        shutil.rmtree(state)
    told.folder = tmp_path / f"{harm}-again"
    again = told.run(config, state)
    assert told.values(again) == told.values(whole)
    assert [report["samples_seen"] for report in again] == [8, 16]


@contextmanager
def listening():
    """As in a training that a study started."""
    token = _listens_to.set("a key")
    try:
        yield
    finally:
        _listens_to.reset(token)


@pytest.mark.slow
def test_in_a_tuner_of_ones_own(generic_root, cache_dir, tmp_path):
    base = tiny_trial(generic_root, cache_dir, eval__at=[8]).to_dict()
    with ray_session():
        results = ray_tune.Tuner(
            ray_tune.with_resources(smolvla_trainable, {"cpu": 1}),
            param_space={**base, "optim.batch_size": ray_tune.grid_search([4, 8]), "runtime.threads": 1},
            tune_config=ray_tune.TuneConfig(metric=METRIC, mode="min", reuse_actors=True, max_concurrent_trials=1),
            run_config=ray_tune.RunConfig(storage_path=str(tmp_path), name="mine", verbose=0),
        ).fit()
    assert not results.errors
    # one process served both trials, so that lerobot was imported once
    assert len({result.metrics["pid"] for result in results}) == 1
    for result in results:
        assert result.metrics["samples_seen"] == 16
        assert [point["samples_seen"] for point in result.metrics[CURVE]] == []
        alone = train(trial_config({**base, "optim.batch_size": result.config["optim.batch_size"]}))
        assert result.metrics[METRIC] == pytest.approx(alone.metrics[METRIC], rel=1e-5)
        ((_, frames, mean),) = result.metrics[EPISODES][METRIC]
        assert (frames, mean) == (4, pytest.approx(result.metrics[METRIC]))
        state = Path(result.checkpoint.path) / STATE
        assert read_state(state)["samples_seen"] == 16
    export_policy(state, tmp_path / "policy")
    assert json.loads((tmp_path / "policy" / "config.json").read_text())["type"] == "smolvla"


@pytest.mark.slow
def test_a_failing_trial_leaves_its_process_to_the_next(generic_root, cache_dir, tmp_path):
    base = tiny_trial(generic_root, cache_dir).to_dict()
    with ray_session():
        results = ray_tune.Tuner(
            ray_tune.with_resources(reporting_failures(smolvla_trainable), {"cpu": 1}),
            param_space={**base, "optim.lr": ray_tune.grid_search([1e30, 1e-3])},
            tune_config=ray_tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1),
            run_config=ray_tune.RunConfig(storage_path=str(tmp_path), name="mine", verbose=0),
        ).fit()
    assert not results.errors, results.errors
    diverged, fine = results
    assert diverged.metrics["failure"].startswith("diverged: ")
    assert "DivergedError" in diverged.metrics["traceback"]
    assert fine.metrics["samples_seen"] == 16
    assert diverged.metrics["pid"] == fine.metrics["pid"]

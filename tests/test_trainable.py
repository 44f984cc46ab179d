"""The public trainable in a ``Tuner`` written by hand, as a user would who has a search of their own."""

import json
from pathlib import Path

import pytest
from ray import tune as ray_tune

from smolvla_core.checkpoint import export_policy, read_state
from smolvla_core.errors import ConfigError, DivergedError
from smolvla_core.train import train
from tests.core_fixtures import tiny_trial
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
    assert failure_reason(ConfigError("optim.lr: wrong")) == "optim.lr: wrong"
    assert failure_reason(ZeroDivisionError("division by zero")) == "ZeroDivisionError: division by zero"


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
    diverged, fine = results
    assert diverged.metrics["failure"].startswith("diverged: ")
    assert "DivergedError" in diverged.metrics["traceback"]
    assert fine.metrics["samples_seen"] == 16
    assert diverged.metrics["pid"] == fine.metrics["pid"]

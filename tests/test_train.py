"""The loop: reports, exact resume, determinism, and the command line."""

import json

import pytest

from smolvla_core.errors import ConfigError, DataError
from smolvla_core.train import main, train
from tests.core_fixtures import tiny_trial


def without_clock(metrics):
    return {name: value for name, value in metrics.items() if "samples_per_s" not in name}


def collect(config, **options):
    reports = []
    result = train(config, lambda metrics, save: reports.append(without_clock(metrics)), **options)
    return result, reports


def assert_resumes_exactly_at_8(config, state):
    """A training that is saved after 8 samples goes on to the reports of an uninterrupted one."""
    _, uninterrupted = collect(config)

    def save_at_8(metrics, save):
        if metrics["samples_seen"] == 8:
            save(state)

    train(config, save_at_8)
    _, resumed = collect(config, restore=state)
    assert resumed == [r for r in uninterrupted if r["samples_seen"] > 8]


def test_reports_at_every_rung_and_between(generic_root, cache_dir):
    config = tiny_trial(generic_root, cache_dir, eval__at=[6, 12], runtime__log_every_samples=4)
    result, reports = collect(config)
    assert [r["samples_seen"] for r in reports] == [4, 8, 12, 16]
    assert ["val/critical_action_mse" in r for r in reports] == [False, True, True, True]
    assert result.samples_seen == 16
    assert result.step == 4
    assert without_clock(result.metrics) == reports[-1]


def test_the_same_seed_gives_the_same_numbers(trial_config):
    assert collect(trial_config)[1] == collect(trial_config)[1]


def test_another_seed_gives_others(trial_config):
    other = trial_config.with_values({"runtime.seed": 1})
    assert collect(trial_config)[1][-1]["train/loss"] != collect(other)[1][-1]["train/loss"]


JITTERED = {"augment__brightness": 0.3, "augment__color_views": 3}


@pytest.mark.parametrize(
    "values", [{}, {"optim__ema_decay": 0.9}, {"optim__schedule": "cosine"}, {"optim__optimizer": "muon"}, JITTERED]
)
def test_resume_is_exact(generic_root, cache_dir, tmp_path, values):
    config = tiny_trial(generic_root, cache_dir, eval__at=[8], **values)
    assert_resumes_exactly_at_8(config, tmp_path / "state")


def test_the_budget_is_in_samples_whatever_the_batch(generic_root, cache_dir):
    result, _ = collect(tiny_trial(generic_root, cache_dir, optim__batch_size=3))
    assert (result.samples_seen, result.step) == (16, 6)


def test_stop_ends_the_run_with_a_report(trial_config):
    result, reports = collect(trial_config, stop=lambda: True)
    assert result.stopped
    assert result.samples_seen == 4
    assert [r["samples_seen"] for r in reports] == [4]


def test_learning_happens(generic_root, cache_dir):
    config = tiny_trial(generic_root, cache_dir, optim__samples=400, optim__batch_size=8, eval__at=[8], optim__lr=3e-3)
    _, reports = collect(config)
    scores = [r["val/critical_action_mse"] for r in reports if "val/critical_action_mse" in r]
    assert scores[-1] < 0.9 * scores[0]


def test_late_stage_draws_only_late_frames(generic_root, cache_dir):
    config = tiny_trial(generic_root, cache_dir, curriculum__scheme="second_half")
    assert collect(config)[0].samples_seen == 16


def test_command_line(generic_root, cache_dir, tmp_path, capsys):
    config = tiny_trial(generic_root, cache_dir)
    file, out = tmp_path / "trial.yaml", tmp_path / "run"
    file.write_text(config.to_yaml())
    assert main([str(file), "--set", "optim.samples=12", "--out", str(out)]) == 0
    output = capsys.readouterr()
    printed = json.loads(output.out)
    assert printed["samples_seen"] == 12
    assert output.err.count("forward: fast and exact (the VLM is frozen") == 1
    assert (out / "policy" / "model.safetensors").is_file()
    assert [json.loads(line)["samples_seen"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [8, 12]

    assert main([str(file), "--out", str(file)]) == 2
    assert capsys.readouterr().err.endswith("trial.yaml is a file); give a folder that can be written to\n")
    assert main([str(file), "--out", str(out)]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert main([str(file), "--out", str(out), "--resume"]) == 2
    assert "was saved with another optim.samples; resume with the same YAML" in capsys.readouterr().err
    same = [str(file), "--set", "optim.samples=12", "--out", str(out), "--resume"]
    assert main([*same, "--set", "runtime.seed=1"]) == 2
    assert "was saved with another runtime.seed; resume with the same YAML" in capsys.readouterr().err
    assert main([*same, "--set", "runtime.compile=true"]) == 2
    assert "was saved with another runtime.compile; resume with the same YAML" in capsys.readouterr().err
    assert main([*same, "--set", "runtime.threads=1", "--set", "runtime.log_every_samples=2"]) == 0  # another machine


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"eval__horizon_s": 2.0}, ConfigError, "eval.horizon_s is 2 s, 20 steps at 10 Hz"),
        ({"state__preset": "top32"}, ConfigError, "set state.preset to identity"),
        ({"policy__max_state_dim": 8}, ConfigError, "10 dims are selected, policy.max_state_dim is 8"),
        ({"policy__max_state_dim": 16}, ConfigError, "policy.max_state_dim is 16, the checkpoint has 32"),
        ({"state__features": ["contact_force"]}, ConfigError, "contact_force needs R1Pro's named state"),
        ({"policy__tokenizer_max_length": 3}, ConfigError, "would be cut"),
        ({"eval__critical": "annotation"}, ConfigError, "nothing for the rule 'annotation'"),
        (
            {"data__cameras": {"top": "observation.images.tpo"}},
            ConfigError,
            "did you mean 'observation.images.top'",
        ),
        ({"data__gripper_dims": [99]}, ConfigError, "leave the state's 0..9"),
        ({"augment__gripper_jitter_m": 0.02}, ConfigError, "needs R1Pro's named state"),
        (
            {"curriculum__scheme": "second_half", "curriculum__start": 0.99},
            ConfigError,
            "no training frame has such",
        ),
        ({"policy__pretrained": "/no/such/policy"}, ConfigError, "/no/such/policy does not exist"),
        ({"data__train": [{"root": "/no/such/data"}]}, DataError, "does not exist"),
    ],
)
def test_bad_input_is_refused_before_training(generic_root, cache_dir, values, error, message):
    with pytest.raises(error, match=message) as caught:
        train(tiny_trial(generic_root, cache_dir, **values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("budget", "scored_at"), [(8, [8]), (16, [12, 16])])
def test_a_budget_below_the_recorded_rungs_is_evaluated_at_its_end(trial_config, budget, scored_at):
    """The best trial's YAML carries its study's rungs; ``--set optim.samples`` may make it shorter than they are."""
    config = trial_config.with_values({"optim.samples": budget, "eval.at": [12, 24]})
    reports = []
    result = train(config, lambda metrics, save: reports.append((metrics["samples_seen"], "val/flow_loss" in metrics)))
    assert [samples for samples, scored in reports if scored] == scored_at
    assert result.metrics["samples_seen"] == result.samples_seen == budget

"""The objective asks every trial the same question."""

import sys

import numpy as np
import pytest
import torch

from smolvla_core.critical import critical_frames
from smolvla_core.errors import ConfigError, InfeasibleError
from smolvla_core.evaluate import evaluate, evaluation_set
from smolvla_core.forward import Answer
from smolvla_core.schedule import learning_rate
from smolvla_core.train import train
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial


def score(trial):
    return evaluate(trial.learner, trial.maker, trial.frames)


def answer_with(trial, actions_of):
    """Make the policy predict what ``actions_of(noise)`` says, in normalised units."""

    class Fixed:
        def answer(self, inputs, noise, time, frames=None, steps=None):
            actions = actions_of(noise)[:, :, :steps, : trial.learner.interface.action_width]
            return Answer(actions, torch.zeros_like(actions))

    trial.learner.forward = Fixed()


def test_identical_actions_score_identically_whatever_the_trial(generic_root, cache_dir):
    variants = [
        {"policy__chunk_size": 10},
        {"policy__chunk_size": 20},
        {"weighting__alpha": 2.0},
        {"optim__batch_size": 2},
        {"eval__batch_size": 3},
        {"optim__lr": 5e-5},
    ]
    scores = []
    for values in variants:
        trial = prepare(tiny_trial(generic_root, cache_dir, **values))
        answer_with(trial, lambda noise: 0.1 * noise)
        scores.append(score(trial)["val/critical_action_mse"])
    assert scores == pytest.approx([scores[0]] * len(scores), rel=1e-6)


def test_alpha_does_not_change_the_score_of_a_policy(generic_root, cache_dir):
    plain, weighted = (prepare(tiny_trial(generic_root, cache_dir, weighting__alpha=a)) for a in (0.0, 2.0))
    assert score(plain) == score(weighted)


def test_repeated_evaluation_is_the_same_and_leaves_no_trace(trial_config):
    trial = prepare(trial_config)
    state = torch.get_rng_state()
    first = score(trial)
    trial.learner.step(trial.maker.training(trial.stream, 0, 4), lr=0.0)
    assert score(trial) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert trial.learner.policy.training


def with_room_for(trial, frames):
    """Make the policy run out of memory above so many frames of a pass; returns the counts it tried."""
    tried, real = [], trial.learner.forward

    class Limited:
        def answer(self, inputs, noise, *rest):
            tried.append(len(noise))
            if len(noise) > frames:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore words.")
            return real.answer(inputs, noise, *rest)

    trial.learner.forward = Limited()
    return tried


def test_frames_that_do_not_fit_together_are_scored_in_halves_to_the_same_numbers(generic_root, cache_dir):
    config = tiny_trial(generic_root, cache_dir, eval__batch_size=8)
    roomy, tight, none = (prepare(config) for _ in range(3))
    tried = with_room_for(tight, 1)
    assert score(tight) == pytest.approx(score(roomy), rel=1e-5)
    assert tried[:3] == [4, 2, 1]
    assert set(tried[2:]) == {1}
    with_room_for(none, 0)
    with pytest.raises(
        InfeasibleError, match=r"not even one frame with 2 draws fits \(CUDA out of memory\. .*GiB\.\)$"
    ):
        score(none)
    assert none.learner.policy.training


def test_perfect_actions_score_zero(trial_config):
    trial = prepare(trial_config)
    truth = {}

    original = trial.maker.validation

    def remember(rows, noise, time):
        batch = original(rows, noise, time)
        inputs = trial.learner.processors.pre(
            {"observation.state": batch.state, "action": batch.action, "task": list(batch.tasks)}
        )
        truth["action"] = inputs["action"]
        return batch

    trial.maker.validation = remember
    answer_with(trial, lambda noise: truth["action"][:, None].expand(-1, noise.shape[1], -1, -1))
    assert score(trial)["val/critical_action_mse"] == pytest.approx(0, abs=1e-10)


def test_frames_are_held_out(trial_config):
    trial = prepare(trial_config)
    assert set(trial.dataset.episode[trial.frames.critical]) <= set(trial.split.val)
    assert set(trial.dataset.episode[trial.frames.everywhere]) <= set(trial.split.val)


def test_progress_rule(trial_config):
    trial = prepare(trial_config)
    found = critical_frames(trial_config, trial.dataset, trial.split.val)
    assert found.rule == "progress"
    assert trial.dataset.progress[found.rows].min() >= 0.6


def test_gripper_rule_follows_named_dims(generic_root, cache_dir):
    config = tiny_trial(
        generic_root, cache_dir, data__gripper_dims=[0], data__val_fraction=0.5, eval__gripper_threshold=0.1
    )
    trial = prepare(config)
    assert trial.frames.rule == "gripper"
    rows = critical_frames(config, trial.dataset, trial.split.val).rows
    opening = trial.dataset.state[:, 0]
    threshold = 0.1 * (opening.max() - opening.min())
    for row in rows:
        episode = trial.dataset.rows_of((int(trial.dataset.episode[row]),))
        near = episode[np.abs(episode - row) <= 5]
        assert opening[near].max() - opening[near].min() > threshold


def test_behavior_data_uses_its_annotations(eggs_root, cache_dir):
    from smolvla_core.data.annotations import load_annotations, manipulation_spans

    config = tiny_trial(eggs_root, cache_dir, state__preset="top32", eval__horizon_s=0.3)
    trial = prepare(config)
    assert evaluation_set(config, trial.dataset, trial.split).rule == "annotation"
    spans = load_annotations(eggs_root)
    for row in critical_frames(config, trial.dataset, trial.split.val).rows:
        frame, episode = trial.dataset.frame[row], int(trial.dataset.episode[row])
        assert any(span.start <= frame < span.stop for span in manipulation_spans(spans[episode]))


def test_the_test_part_is_scored_by_validations_rule(eggs_root, cache_dir, monkeypatch):
    config = tiny_trial(eggs_root, cache_dir, state__preset="top32", eval__horizon_s=0.3, eval__test=True)
    chosen = []

    def watched(*arguments):
        found = critical_frames(*arguments)
        chosen.append((*arguments[3:], found.rule))
        return found

    # the package has a function of the module's name
    monkeypatch.setattr(sys.modules["smolvla_core.evaluate"], "critical_frames", watched)
    inputs = resolve(config)
    assert chosen == [("validation", None, "annotation"), ("test", "annotation", "annotation")]
    assert (inputs.frames.rule, inputs.test_frames.rule) == ("annotation", "annotation")


def test_trained_trials_score_the_same_actions_the_same(eggs_root, cache_dir):
    found = []
    for chunk_size, alpha in ((12, 0.0), (12, 2.0), (20, 0.0), (20, 2.0)):
        trial = prepare(
            tiny_trial(
                eggs_root,
                cache_dir,
                state__preset="top32",
                policy__chunk_size=chunk_size,
                weighting__alpha=alpha,
                eval__horizon_s=0.4,
            )
        )
        for step in range(2):
            trial.learner.step(trial.training(4 * step, 4), learning_rate(trial.learner.config.optim, 4 * step))
        own = trial.scores()
        answer_with(trial, lambda noise: 0.1 * noise)
        found.append((own.metrics["val/critical_action_mse"], trial.scores()))
    assert len({own for own, _ in found}) == 4  # they have learned different things
    for _, same in found[1:]:
        actions_alone = {key: value for key, value in same.metrics.items() if key != "val/flow_loss"}
        expected = {key: value for key, value in found[0][1].metrics.items() if key != "val/flow_loss"}
        assert actions_alone == pytest.approx(expected, rel=1e-6)


def test_companions_are_told_of_an_r1pro_and_of_no_other(eggs_root, generic_root, cache_dir):
    eggs = tiny_trial(eggs_root, cache_dir, state__preset="top32", eval__horizon_s=0.3, eval__frames=64)
    found = prepare(eggs).scores().metrics
    parts = {"base": 3, "trunk": 4, "arms": 14, "grippers": 2}
    together = sum(dims * found[f"val/critical_{part}_mse"] for part, dims in parts.items()) / 23
    assert together == pytest.approx(found["val/critical_action_mse"])
    assert 0 < found["val/eef_error_m"] < 3
    assert 0 <= found["val/gripper_timing_s"] <= 0.3
    other = prepare(tiny_trial(generic_root, cache_dir)).scores().metrics
    assert not {"val/critical_arms_mse", "val/eef_error_m", "val/gripper_timing_s"} & set(other)


def test_errors_by_episode_average_to_the_metrics(eggs_root, cache_dir):
    config = tiny_trial(eggs_root, cache_dir, state__preset="top32", eval__horizon_s=0.3, eval__frames=16)
    config = config.with_values({"data.val_fraction": 0.5})
    trial = prepare(config)
    found = trial.scores()
    assert set(found.episodes) == {key for key in found.metrics if not key.endswith("_se")}
    for key, rows in found.episodes.items():
        episodes, counts, means = zip(*rows, strict=True)
        assert set(episodes) <= set(trial.split.val)
        assert np.average(means, weights=counts) == pytest.approx(found.metrics[key])
    assert found.metrics["val/critical_action_mse_se"] > 0
    assert found.metrics["val/critical_action_mse_draw_se"] > 0


def test_test_episodes_are_scored_once_at_the_end_and_only_where_asked_for(eggs_root, cache_dir, monkeypatch):
    looked_at = []
    from smolvla_core.data.batch import BatchMaker

    original = BatchMaker.validation
    monkeypatch.setattr(
        BatchMaker, "validation", lambda self, rows, *rest: looked_at.extend(rows) or original(self, rows, *rest)
    )
    reports = []

    def report(metrics, save):
        reports.append((metrics, save.episodes))

    config = tiny_trial(eggs_root, cache_dir, state__preset="top32", eval__horizon_s=0.3, eval__at=[8])
    test = set(prepare(config).split.test)
    dataset = prepare(config).dataset
    train(config, report)
    assert not test & set(dataset.episode[looked_at])
    assert not [key for metrics, _ in reports for key in metrics if key.startswith("test/")]
    with pytest.raises(ConfigError, match="eval.test is false"):
        prepare(config).scores("test")

    plain = [metrics for metrics, _ in reports if "val/critical_action_mse" in metrics]
    reports.clear()
    train(config.with_values({"eval.test": True}), report)
    scored = [metrics for metrics, _ in reports if "val/critical_action_mse" in metrics]
    assert [m["val/critical_action_mse"] for m in scored] == [m["val/critical_action_mse"] for m in plain]
    assert ["test/critical_action_mse" in metrics for metrics in scored] == [False, True]
    assert {row[0] for row in reports[-1][1]["test/critical_action_mse"]} == test

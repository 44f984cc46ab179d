"""One step: equal to upstream where it should be, and different where the recipe says so."""

import copy

import numpy as np
import pytest
import torch
from lerobot.datasets import LeRobotDataset
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors

from smolvla_core.data.batch import to_lerobot
from smolvla_core.data.sampler import Curriculum, SampleStream
from smolvla_core.errors import ConfigError, DivergedError, InfeasibleError
from smolvla_core.learner import average_decay, pick_device, pick_precision
from smolvla_core.policy import training_stats
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial


def last_rows_batch(trial, count=4):
    """A batch from the end of a training episode, so that it has padding and high progress."""
    episode = trial.split.train[0]
    end = trial.dataset.starts[episode] + trial.dataset.lengths[episode]
    rows = np.array([end - 1 - 3 * i for i in range(count)], dtype=np.int64)
    return trial.maker.training(SampleStream(Curriculum.none(rows), seed=0), 0, count)


def gradients(trial, batch):
    """Gradients of a step, taken before the optimizer sees them."""
    taken = {}
    step = trial.learner.optimizers.step
    trial.learner.optimizers.step = lambda lr: taken.update(
        {name: p.grad.clone() for name, p in trial.learner.trained.items()}
    )
    try:
        stats = trial.learner.step(batch, lr=1e-4)
    finally:
        trial.learner.optimizers.step = step
    return taken, stats


def test_alpha_zero_equals_the_mean_of_upstreams_losses(trial_config):
    trial = prepare(trial_config)
    batch = last_rows_batch(trial)
    assert batch.is_pad.any()
    # upstream's own dataset, collation and pre-processor
    policy, steps = trial.learner.policy, trial_config.policy.chunk_size
    stock = LeRobotDataset(
        "local/generic", root=trial.dataset.root, delta_timestamps={"action": [i / 10 for i in range(steps)]}
    )
    items = torch.utils.data.default_collate([stock[int(row)] for row in batch.rows])
    pre, _ = make_smolvla_pre_post_processors(policy.config, training_stats(trial.learner.interface))
    inputs = pre(items)
    losses, _ = policy.forward(inputs, noise=batch.noise, time=batch.time, reduction="none")
    _, stats = gradients(trial, batch)
    assert stats.loss == pytest.approx(losses.mean().item(), rel=1e-6)
    # and it is not upstream's scalar, which averages over the batch's valid entries
    mean, _ = policy.forward(inputs, noise=batch.noise, time=batch.time)
    assert abs(stats.loss - mean.item()) > 1e-4


def test_twenty_steps_equal_lerobots(generic_root, cache_dir):
    """Forward, clipping and optimizer: lerobot's own preset on a copy of the policy."""
    trial = prepare(tiny_trial(generic_root, cache_dir, optim__lr=1e-4, optim__grad_clip=1.0))
    learner, chunk = trial.learner, trial.maker.chunk_size
    rows = trial.dataset.rows_of(trial.split.train)
    whole = rows[trial.dataset.frame[rows] + chunk <= trial.dataset.lengths[trial.dataset.episode[rows]]]
    stream = SampleStream(Curriculum.none(whole), seed=0)
    policy = copy.deepcopy(learner.policy)
    optimizer = policy.config.get_optimizer_preset().build(policy.parameters())
    start = {name: p.detach().clone() for name, p in learner.trained.items()}
    for step in range(20):
        batch = trial.maker.training(stream, 4 * step, 4)
        inputs = to_lerobot(batch, learner.interface, learner.processors, learner.device)
        loss, _ = policy.forward(inputs, noise=batch.noise, time=batch.time)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        stats = learner.step(batch, lr=1e-4)
        assert stats.loss == pytest.approx(loss.item(), rel=1e-5)
        assert stats.grad_norm == pytest.approx(norm.item(), rel=1e-5)
    expected = dict(policy.named_parameters())
    for name, found in learner.trained.items():
        assert (found - expected[name]).norm() < 1e-5 * expected[name].norm(), name
        assert (found - expected[name]).norm() < 1e-3 * (found - start[name]).norm(), name


def test_alpha_changes_every_trained_gradient(generic_root, cache_dir):
    plain, weighted = (prepare(tiny_trial(generic_root, cache_dir, weighting__alpha=a)) for a in (0.0, 2.0))
    before, _ = gradients(plain, last_rows_batch(plain))
    after, _ = gradients(weighted, last_rows_batch(weighted))
    moved = {name for name in before if not torch.allclose(before[name], after[name], rtol=1e-4)}
    unused = {name for name in before if not before[name].any()}
    assert moved == set(before) - unused
    assert len(moved) > 40


def test_the_direction_of_the_gradient_turns(generic_root, cache_dir):
    plain, weighted = (prepare(tiny_trial(generic_root, cache_dir, weighting__alpha=a)) for a in (0.0, 2.0))
    flat = [torch.cat([g.flatten() for g in gradients(t, last_rows_batch(t))[0].values()]) for t in (plain, weighted)]
    assert torch.cosine_similarity(*flat, dim=0) < 0.9999


@pytest.mark.parametrize("normalize", [False, True])
def test_accumulation_changes_only_rounding(generic_root, cache_dir, normalize):
    values = {"weighting__alpha": 1.0, "weighting__normalize": normalize}
    whole = prepare(tiny_trial(generic_root, cache_dir, **values))
    parts = prepare(tiny_trial(generic_root, cache_dir, optim__micro_batch=3, **values))
    reference, stats = gradients(whole, last_rows_batch(whole))
    accumulated, accumulated_stats = gradients(parts, last_rows_batch(parts))
    assert accumulated_stats.loss == pytest.approx(stats.loss, rel=1e-5)
    for name, gradient in reference.items():
        assert torch.allclose(gradient, accumulated[name], rtol=1e-3, atol=1e-6), name


def test_only_the_expert_and_the_state_projection_are_trained(trial_config):
    learner = prepare(trial_config).learner
    assert all("vlm_with_expert.vlm." not in name for name in learner.trained)
    assert "model.state_proj.weight" in learner.trained


def test_unfrozen_vision_is_trained(generic_root, cache_dir):
    values = {"policy__train_expert_only": False, "policy__freeze_vision_encoder": False}
    trial = prepare(tiny_trial(generic_root, cache_dir, **values))
    taken, _ = gradients(trial, last_rows_batch(trial))
    vision = [name for name in taken if "vision_model" in name]
    assert vision
    assert any(taken[name].any() for name in vision)


def test_divergence_leaves_the_weights_unharmed(trial_config):
    trial = prepare(trial_config)
    learner = trial.learner
    batch = last_rows_batch(trial)
    before = {name: p.detach().clone() for name, p in learner.trained.items()}
    batch.action[0, 0, 0] = float("inf")
    with pytest.raises(DivergedError, match="after 0 samples"):
        learner.step(batch, lr=1e-4)
    assert all(torch.equal(before[name], p) for name, p in learner.trained.items())
    assert learner.samples_seen == 0


def test_a_moving_average_by_hand(generic_root, cache_dir):
    trial = prepare(tiny_trial(generic_root, cache_dir, optim__ema_decay=0.5))
    learner, name = trial.learner, "model.action_out_proj.weight"
    start = learner.trained[name].detach().clone()
    learner.step(last_rows_batch(trial), lr=1e-2)
    end = learner.trained[name].detach().clone()
    assert not torch.equal(start, end)
    assert torch.allclose(learner.ema[name], 0.1 * start + 0.9 * end)
    learner.swap_ema()
    assert torch.allclose(learner.trained[name], 0.1 * start + 0.9 * end)
    learner.swap_ema()
    assert torch.equal(learner.trained[name], end)


def test_a_moving_average_forgets_the_start():
    assert [average_decay(0.998, n) for n in (0, 8, 90)] == pytest.approx([0.1, 0.5, 0.91])
    assert average_decay(0.998, 10_000) == 0.998
    share = 1.0
    for step in range(600):
        share *= average_decay(0.998, step)
    assert share < 1e-6


def test_devices(trial_config):
    runtime = trial_config.runtime
    assert pick_device(runtime).type in ("cpu", "cuda")
    assert pick_precision(runtime, torch.device("cpu")) == "fp32"
    with pytest.raises(ConfigError, match=r"runtime.device: 'cuda:77' cannot be used here"):
        pick_device(runtime.model_copy(update={"device": "cuda:77"}))


def with_room_for(learner, samples):
    """Make the learner run out of memory above so many samples of a forward; returns the sizes it tried."""
    tried, real = [], learner.losses

    def limited(batch, weights):
        tried.append(len(batch))
        if len(batch) > samples:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore words.")
        return real(batch, weights)

    learner.losses = limited
    return tried


def test_what_does_not_fit_into_the_memory_is_trained_in_halves_to_the_same_numbers(generic_root, cache_dir):
    config = tiny_trial(generic_root, cache_dir, optim__batch_size=7)
    roomy, tight = prepare(config), prepare(config)
    tried = with_room_for(tight.learner, 2)
    for first in (0, 7):
        whole = roomy.learner.step(roomy.training(first, 7), 1e-3)
        halved = tight.learner.step(tight.training(first, 7), 1e-3)
        assert halved.loss == pytest.approx(whole.loss, rel=1e-5)
        assert halved.grad_norm == pytest.approx(whole.grad_norm, rel=1e-4)
    assert tried == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1]  # the second step knows what fits
    for name, parameter in roomy.learner.trained.items():
        assert torch.allclose(tight.learner.trained[name], parameter, atol=1e-5), name


def test_a_trial_that_cannot_fit_is_told_so_before_anything_changed(trial_config):
    trial = prepare(trial_config)
    with_room_for(trial.learner, 0)
    before = {name: parameter.clone() for name, parameter in trial.learner.trained.items()}
    with pytest.raises(InfeasibleError, match=r"not even one sample at a time fits \(CUDA out of memory\. .*GiB\.\)$"):
        trial.learner.step(trial.training(0, 4), 1e-3)
    assert all(torch.equal(parameter, before[name]) for name, parameter in trial.learner.trained.items())
    assert trial.learner.samples_seen == 0

"""The fast forward gives upstream's numbers, and runs what is constant once."""

import copy
from contextlib import nullcontext

import pytest
import torch

from smolvla_core import fast, fast_layers, forward
from smolvla_core.evaluate import evaluate
from smolvla_core.fast import encode_prefix
from smolvla_core.forward import FastForward, Prefixes, TrainedForward, UpstreamForward
from smolvla_core.trial import prepare
from tests.core_fixtures import tiny_trial
from tests.smolvla import CAMERAS, make_flow, make_inputs, make_policy
from tests.test_learner import gradients, last_rows_batch

VARIANTS = {
    "as smolvla_base": {},
    "self-attention in every layer": {"self_attn_every_n_layers": 1},
    "self-attention in every third layer": {"self_attn_every_n_layers": 3},
    "cross-attention in every layer": {"self_attn_every_n_layers": -1},
    "attention_mode self_attn": {"attention_mode": "self_attn"},
    "an expert of half the layers": {"num_expert_layers": 2, "self_attn_every_n_layers": -1},
    "an expert of one layer": {"num_expert_layers": 1, "self_attn_every_n_layers": -1},
    "fewer VLM layers": {"num_vlm_layers": 2},
    "a padded prefix": {"prefix_length": 64},
    "image special tokens": {"add_image_special_tokens": True},
    "an empty camera": {"empty_cameras": 1},
    "an empty camera with special tokens": {"empty_cameras": 1, "add_image_special_tokens": True},
    "one action": {"chunk_size": 1},
    "a long chunk": {"chunk_size": 50},
    "a wide expert": {"expert_width_multiplier": 1.0},
    "state projection frozen": {"train_state_proj": False},
}
# upstream trains these and cannot predict with them: a joint layer without an expert has no queries
TRAINING_ONLY = {
    "half the layers, every third joint": {"num_expert_layers": 2, "self_attn_every_n_layers": 3},
    "half the layers, all joint": {"num_expert_layers": 2, "attention_mode": "self_attn"},
}


def variants(values):
    return pytest.mark.parametrize("settings", values.values(), ids=values.keys())


def distance(value, reference):
    """Relative to the reference's norm."""
    return ((value - reference).norm() / reference.norm()).item()


def loss_and_gradients(forward, inputs, noise, time, autocast=False):
    forward.policy.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        errors = forward.flow_errors(inputs, noise, time)
    loss = errors.mean()
    loss.backward()
    named = forward.policy.named_parameters()
    return loss.item(), {name: p.grad.clone() for name, p in named if p.grad is not None}


UNFROZEN = {
    "the VLM": {"train_expert_only": False, "freeze_vision_encoder": True},
    "VLM and tower": {"train_expert_only": False, "freeze_vision_encoder": False},
}


@pytest.mark.parametrize("trained", UNFROZEN.values(), ids=UNFROZEN.keys())
@variants({name: VARIANTS[name] for name in ("as smolvla_base", "attention_mode self_attn", "an empty camera")})
def test_a_trained_vlm_learns_as_upstreams(cache_dir, settings, trained):
    policy = make_policy(cache_dir, **settings, **trained)
    rivals = [UpstreamForward(policy), TrainedForward(copy.deepcopy(policy))]
    inputs = make_inputs(policy)
    inputs[f"{CAMERAS[1]}_padding_mask"] = torch.tensor([True, False, True])
    (loss, expected), (fast_loss, found) = (loss_and_gradients(f, inputs, *make_flow(policy, 3)) for f in rivals)
    assert fast_loss == pytest.approx(loss, rel=1e-5)
    assert {name for name, p in policy.named_parameters() if p.requires_grad} >= set(found) == set(expected)
    assert any("text_model" in name for name in found)
    assert any("vision_model" in name for name in found) != trained["freeze_vision_encoder"]
    assert max(distance(found[name], expected[name]) for name in found if expected[name].norm() > 1e-6) < 1e-4
    actions = [forward.answer(inputs, *make_flow(policy, 3, 4)) for forward in rivals]
    assert distance(actions[1].actions, actions[0].actions) < 1e-5
    assert distance(actions[1].errors, actions[0].errors) < 1e-5


@pytest.mark.parametrize("trained", [{}, UNFROZEN["VLM and tower"]], ids=["frozen", "trained"])
def test_several_draws_give_the_mean_of_their_errors_in_one_pass(cache_dir, trained):
    policy = make_policy(cache_dir, **trained)
    inputs, (noise, time) = make_inputs(policy), make_flow(policy, 3, 4)
    encoded = []
    policy.model.state_proj.register_forward_hook(lambda *_: encoded.append(1))
    upstream, ours = UpstreamForward(policy), (TrainedForward if trained else FastForward)(policy)
    apart = torch.stack([upstream.flow_errors(inputs, noise[:, draw], time[:, draw]) for draw in range(4)])
    encoded.clear()
    together = ours.flow_errors(inputs, noise, time)
    assert len(encoded) == 1
    assert distance(together, apart.mean(dim=0)) < 1e-5
    assert distance(upstream.flow_errors(inputs, noise, time), apart.mean(dim=0)) < 1e-5


@variants(VARIANTS | TRAINING_ONLY)
def test_loss_gradients_and_twenty_steps_equal_upstreams(cache_dir, settings):
    policy = make_policy(cache_dir, **settings)
    rivals = [UpstreamForward(policy), FastForward(copy.deepcopy(policy))]
    inputs = make_inputs(policy)
    inputs[f"{CAMERAS[1]}_padding_mask"] = torch.tensor([True, False, True])
    optimizers = [torch.optim.AdamW(f.policy.parameters(), lr=1e-4, betas=(0.9, 0.95)) for f in rivals]
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    for step in range(20):
        noise, time = make_flow(policy, 3, seed=step)
        (loss, expected), (fast_loss, found) = (loss_and_gradients(f, inputs, noise, time) for f in rivals)
        assert fast_loss == pytest.approx(loss, rel=1e-5)
        if step == 0:
            assert set(found) == set(expected) == trained
            assert max(distance(found[name], expected[name]) for name in trained) < 1e-5
        for optimizer in optimizers:
            optimizer.step()
    start = dict(make_policy(cache_dir, **settings).named_parameters())
    expected_end, found_end = (dict(f.policy.named_parameters()) for f in rivals)
    for name in trained:
        assert not torch.equal(start[name], found_end[name])
        assert distance(found_end[name], expected_end[name]) < 1e-5, name


@variants(VARIANTS)
def test_predicted_actions_equal_upstreams(cache_dir, settings):
    policy = make_policy(cache_dir, **settings)
    inputs, (noise, time) = make_inputs(policy), make_flow(policy, 3, 4)
    expected = UpstreamForward(policy).answer(inputs, noise, time)
    found = FastForward(policy).answer(inputs, noise, time)
    assert found.actions.shape == (3, 4, policy.config.chunk_size, 5)
    assert distance(found.actions, expected.actions) < 1e-5
    assert distance(found.errors, expected.errors) < 1e-5


@pytest.mark.parametrize("kind", [UpstreamForward, FastForward, TrainedForward])
@variants({name: VARIANTS[name] for name in ("as smolvla_base", "attention_mode self_attn")})
def test_the_first_steps_of_a_chunk_are_the_same_alone(cache_dir, settings, kind):
    policy = make_policy(cache_dir, **settings)
    inputs, draws = make_inputs(policy), make_flow(policy, 3, 4)
    tokens = []
    policy.model.action_in_proj.register_forward_hook(lambda module, given, found: tokens.append(found.shape[1]))
    whole = kind(policy).answer(inputs, *draws)
    assert set(tokens) == {policy.config.chunk_size}
    tokens.clear()
    part = kind(policy).answer(inputs, *draws, steps=3)
    assert set(tokens) == {policy.config.chunk_size if kind is UpstreamForward else 3}
    assert distance(part.actions, whole.actions[:, :, :3]) < 1e-5
    assert distance(part.errors, whole.errors[:, :, :3]) < 1e-5


def test_attention_has_as_many_heads_of_queries_as_of_keys(cache_dir, monkeypatch):
    """What CUDA's fused kernels ask for in fp32, where there is a mask."""
    policy = make_policy(cache_dir)
    attention, heads = fast_layers.F.scaled_dot_product_attention, []

    def remember(query, key, value, **given):
        heads.append((query.shape[1], key.shape[1]))
        assert not given.get("enable_gqa")
        return attention(query, key, value, **given)

    monkeypatch.setattr(fast_layers.F, "scaled_dot_product_attention", remember)
    found = FastForward(policy).answer(make_inputs(policy), *make_flow(policy, 3, 4))
    text = policy.model.vlm_with_expert.get_vlm_model().text_model.config
    assert text.num_attention_heads > text.num_key_value_heads
    assert (text.num_key_value_heads,) * 2 in heads
    assert all(queries == keys for queries, keys in heads)
    assert found.actions.isfinite().all()


def test_nothing_constant_is_computed_twice(cache_dir):
    policy = make_policy(cache_dir)
    vlm = policy.model.vlm_with_expert.get_vlm_model()
    counted = {"tower": vlm.vision_model, "layer": vlm.text_model.layers[0].self_attn.k_proj}
    counted |= {
        "last": vlm.text_model.layers[-1].mlp,
        "cross": policy.model.vlm_with_expert.lm_expert.layers[1].self_attn.k_proj,
    }
    calls = dict.fromkeys(counted, 0)

    def count(name):
        calls[name] += 1

    for name, module in counted.items():
        module.register_forward_hook(lambda *_, name=name: count(name))
    FastForward(policy).answer(make_inputs(policy), *make_flow(policy, 3, 4))
    # tower: two cameras of three frames, picture by picture. layer: once for images and language, once
    # for the state. The rest of the last layer is not needed; the expert's projections of the prefix
    # serve all steps and draws.
    assert calls == {"tower": 6, "layer": 2, "last": 0, "cross": 1}


def test_only_state_and_expert_are_differentiated(cache_dir):
    policy = make_policy(cache_dir)
    recorded = []
    mlp = policy.model.vlm_with_expert.get_vlm_model().text_model.layers[0].mlp
    mlp.register_forward_hook(lambda _, __, output: recorded.append((output.shape[1], output.requires_grad)))
    FastForward(policy).flow_errors(make_inputs(policy), *make_flow(policy, 3))
    (prefix, prefix_differentiated), (state, state_differentiated) = recorded
    assert (prefix_differentiated, state, state_differentiated) == (False, 1, True)
    assert prefix > 12


def test_embeddings_can_be_stored(cache_dir, tmp_path):
    policy = make_policy(cache_dir, bf16_vlm=True)
    inputs, (noise, time) = make_inputs(policy), make_flow(policy, 3)
    forward = FastForward(policy)
    fresh = forward.observe(inputs)
    torch.save(fresh.embeddings, tmp_path / "embeddings.pt")
    stored = torch.load(tmp_path / "embeddings.pt")
    assert all(e.dtype == torch.bfloat16 and not e.requires_grad for e in stored)
    again = fast.Observation(stored, fresh.image_masks, fresh.tokens, fresh.token_mask)
    action, state = policy.prepare_action(inputs), policy.prepare_state(inputs)
    prefixes = [encode_prefix(policy, seen) for seen in (fresh, again)]
    contexts = [fast.join_state(policy, prefix, state) for prefix in prefixes]
    first, second = (fast.flow_errors(policy, context, action, noise, time) for context in contexts)
    assert torch.equal(first, second)


def flat(gradients_by_name):
    return torch.cat([gradient.flatten() for _, gradient in sorted(gradients_by_name.items())])


@pytest.mark.parametrize("autocast", [False, True], ids=["bf16 VLM", "bf16 VLM under autocast"])
def test_promotes_where_upstream_promotes(cache_dir, monkeypatch, autocast):
    policy = make_policy(cache_dir, bf16_vlm=True)
    inputs, flow, draws = make_inputs(policy), make_flow(policy, 3), make_flow(policy, 3, 2)
    both = policy.model.vlm_with_expert

    def eager(query, seen, mask):
        mask = mask.expand(-1, query.shape[1], -1)
        return both.eager_attention_forward(mask, len(query), query.shape[-1], query, *seen)

    monkeypatch.setattr(fast, "attend", eager)
    loss, expected = loss_and_gradients(UpstreamForward(policy), inputs, *flow, autocast)
    fast_loss, found = loss_and_gradients(FastForward(policy), inputs, *flow, autocast)
    # With upstream's attention kernel nothing forward is rounded elsewhere than upstream, and bf16
    # rounds to 4e-3. Gradients are summed in another order, under autocast in bf16.
    assert fast_loss == pytest.approx(loss, rel=1e-6)
    assert distance(flat(found), flat(expected)) < (2e-4 if autocast else 3e-5)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        actions = [kind(policy).answer(inputs, *draws).actions for kind in (FastForward, UpstreamForward)]
    assert distance(*actions) < 1e-6


def test_no_further_from_fp32_than_upstream(cache_dir):
    """In the mean over seeds: a single one is the luck of rounding."""
    totals = {UpstreamForward: torch.zeros(2), FastForward: torch.zeros(2)}
    for seed in range(8):
        policy = make_policy(cache_dir, seed=seed, bf16_vlm=True)
        reference = copy.deepcopy(policy).float()
        inputs, flow = make_inputs(policy, seed=seed), make_flow(policy, 3, seed=seed)
        draws = make_flow(policy, 3, 2, seed=seed)
        exact_loss, exact = loss_and_gradients(UpstreamForward(reference), inputs, *flow)
        exact_actions = UpstreamForward(reference).answer(inputs, *draws).actions
        for kind, total in totals.items():
            loss, found = loss_and_gradients(kind(policy), inputs, *flow)
            assert loss == pytest.approx(exact_loss, rel=2e-4)
            actions = kind(policy).answer(inputs, *draws).actions
            total += torch.tensor([distance(flat(found), flat(exact)), distance(actions, exact_actions)])
    assert (totals[FastForward] <= 1.05 * totals[UpstreamForward]).all()


def test_the_path_and_its_reason(cache_dir, generic_root):
    assert "VLM is frozen" in fast.what_is_trained(make_policy(cache_dir))
    vision = make_policy(cache_dir)
    vision.model.vlm_with_expert.get_vlm_model().vision_model.post_layernorm.weight.requires_grad = True
    assert fast.what_is_trained(vision) == "the vision tower is trained"
    assert fast.what_is_trained(make_policy(cache_dir, train_expert_only=False)) == "the VLM is trained"
    unfrozen = tiny_trial(generic_root, cache_dir, policy__train_expert_only=False)
    learner = prepare(unfrozen).learner
    assert isinstance(learner.forward, TrainedForward)
    assert learner.forward_line == "forward: fast and exact (the VLM is trained)"
    asked = tiny_trial(generic_root, cache_dir, runtime__fast_forward=False)
    assert prepare(asked).learner.forward_line == "forward: lerobot's (runtime.fast_forward is false)"


@pytest.mark.parametrize("pretrained", ["tiny", "lookalike"])
def test_a_trial_is_the_same_either_way(request, generic_root, cache_dir, pretrained):
    values = {"weighting__alpha": 2.0}
    if pretrained == "lookalike":
        values["policy__pretrained"] = str(request.getfixturevalue("lookalike"))
        values["data__cameras"] = {f"camera{i}": f"observation.images.{key}" for i, key in ((1, "top"), (2, "wrist"))}
    trials = [prepare(tiny_trial(generic_root, cache_dir, runtime__fast_forward=on, **values)) for on in (True, False)]
    tolerance = 1e-5 if pretrained == "tiny" else 2e-3  # a bf16 VLM
    (found, stats), (expected, reference) = (gradients(trial, last_rows_batch(trial)) for trial in trials)
    assert stats.loss == pytest.approx(reference.loss, rel=tolerance)
    assert distance(flat(found), flat(expected)) < tolerance
    found, expected = (evaluate(trial.learner, trial.maker, trial.frames) for trial in trials)
    assert found == pytest.approx(expected, rel=tolerance)


def test_frames_that_are_scored_again_are_not_encoded_again(cache_dir, monkeypatch):
    """Same numbers to the bit, after the expert and the state projection have moved too."""
    policy = make_policy(cache_dir)
    inputs, draws = make_inputs(policy), make_flow(policy, 3, 4)
    encoded = []
    monkeypatch.setattr(forward, "encode_prefix", lambda *a, **k: encoded.append(1) or encode_prefix(*a, **k))
    keeping = FastForward(policy, Prefixes(10**9))
    for _ in range(2):
        kept, fresh = keeping.answer(inputs, *draws, frames=(3, 5, 8)), FastForward(policy).answer(inputs, *draws)
        assert torch.equal(kept.actions, fresh.actions)
        assert torch.equal(kept.errors, fresh.errors)
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.01)
    assert len(encoded) == 1 + 2
    keeping.answer(inputs, *draws, frames=(3, 5, 9))
    assert len(encoded) == 4


def test_only_what_fits_is_kept(cache_dir):
    policy = make_policy(cache_dir)
    inputs, draws = make_inputs(policy), make_flow(policy, 3, 4)
    keeping = FastForward(policy, Prefixes(10**9))
    keeping.answer(inputs, *draws, frames=(1,))
    size = 10**9 - keeping.prefixes.room
    # keys and values of 4 layers, 2 heads of 16: 3 frames of as many tokens as the mask has
    assert size == 3 * keeping.prefixes.kept[(1,)].mask.shape[1] * 4 * 2 * 2 * 16 * 4
    small = FastForward(policy, Prefixes(2 * size - 1))
    for frames in ((1,), (2,), (1,)):
        small.answer(inputs, *draws, frames=frames)
    assert set(small.prefixes.kept) == {(1,)}

"""What the frozen VLM makes of frames is kept: the same numbers, without its forward."""

import numpy as np
import pytest
import torch

from smolvla_core.cache import prefixes
from smolvla_core.cache.identity import language_digest, name_of, prefixes_identity
from smolvla_core.cache.plan import plan_cache
from smolvla_core.cache.store import Store
from smolvla_core.fast import encode_prefix, prefix_dtypes, prefix_heads
from smolvla_core.forward import FastForward
from smolvla_core.prefix import Form
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial
from tests.smolvla import make_inputs, make_policy
from tests.test_cache import reports_of
from tests.test_cotraining import two_tasks
from tests.test_learner import gradients

VIEWS = {"augment__brightness": 0.4, "augment__color_views": 2}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features"


def cached(config, folder, **values):
    return config.with_values({"runtime.cache": str(folder), **values})


@pytest.fixture
def encoded(monkeypatch):
    """Prefixes that were encoded for the cache."""
    calls = []
    monkeypatch.setattr(
        prefixes, "encode_prefix", lambda *arguments: calls.append(arguments) or encode_prefix(*arguments)
    )
    return calls


def close(reports):
    return [pytest.approx(report, rel=1e-5, abs=1e-9) for report in reports]


@pytest.mark.parametrize("values", [{}, VIEWS], ids=["as recorded", "views"])
def test_a_run_is_the_same_to_the_bit_cold_and_warm_and_to_rounding_without(
    generic_root, cache_dir, folder, encoded, values
):
    config = tiny_trial(generic_root, cache_dir, eval__at=[8], **values)
    without = reports_of(cached(config, folder, **{"runtime.prefixes": "off"}))
    assert not encoded
    cold = reports_of(cached(config, folder))
    assert cold == close(without)
    assert encoded
    encoded.clear()
    assert reports_of(cached(config, folder)) == cold
    assert not encoded


def test_gradients_are_lerobots(generic_root, cache_dir, folder):
    plain = prepare(tiny_trial(generic_root, cache_dir, runtime__fast_forward=False))
    expected, _ = gradients(plain, plain.training(0, 4)[0])
    trial = prepare(cached(tiny_trial(generic_root, cache_dir), folder))
    for _ in range(2):
        batch = trial.training(0, 4)[0]
        assert batch.prefix is not None
        assert not batch.images
        assert not batch.embeddings
        found, _ = gradients(trial, batch)
        assert set(found) == set(expected)
        for name in expected:
            assert (found[name] - expected[name]).norm() < 1e-5 * expected[name].norm()


def test_micro_batches_take_their_part(generic_root, cache_dir, folder):
    whole, parts = (
        prepare(cached(tiny_trial(generic_root, cache_dir, optim__micro_batch=size), folder)) for size in (None, 1)
    )
    losses = [trial.learner.step(trial.training(0, 4), 1e-4).loss for trial in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_two_instructions_have_their_own(eggs_root, mousetraps_root, cache_dir, folder, encoded):
    """Of other lengths, in two datasets that are trained together."""
    config = two_tasks(eggs_root, mousetraps_root, cache_dir)
    without = reports_of(cached(config, folder, **{"runtime.prefixes": "off"}))
    assert reports_of(cached(config, folder)) == close(without)
    assert len({tokens.shape[1] for _, observation, _ in encoded for tokens in [observation.tokens]}) == 2


def test_it_depends_on_the_language_model_and_the_instruction(generic_root, cache_dir):
    trial = prepare(tiny_trial(generic_root, cache_dir))
    policy = trial.learner.policy
    before = language_digest(policy)
    names = [
        name_of(prefixes_identity(trial.dataset, [], before, torch.tensor([tokens]), rounds))
        for tokens, rounds in (([1, 2], False), ([1, 3], False), ([1, 2], True))
    ]
    assert len(set(names)) == 3
    with torch.no_grad():
        policy.model.vlm_with_expert.get_vlm_model().text_model.layers[1].mlp.up_proj.weight[0, 0] += 1
    assert language_digest(policy) != before


def test_a_policy_of_two_precisions_keeps_each_as_it_is(generic_root, cache_dir, lookalike, folder):
    values = {"data__cameras": {f"camera{i}": f"observation.images.{key}" for i, key in ((1, "top"), (2, "wrist"))}}
    config = tiny_trial(generic_root, cache_dir, policy__pretrained=str(lookalike), **values)
    trial = prepare(cached(config, folder))
    assert len(list(folder.glob("*-prefixes-*"))) == 2  # training and prediction round in other places
    batch = trial.training(0, 4)[0]
    fresh = prepare(cached(config, folder, **{"runtime.prefixes": "off"}))
    inputs = fresh.training(0, 4)[0]
    found, expected = (t.learner.step(b, 1e-4) for t, b in ((trial, batch), (fresh, inputs)))
    assert found.loss == pytest.approx(expected.loss, rel=2e-3)


@pytest.mark.parametrize("bf16_vlm", [False, True], ids=["fp32", "bf16 VLM"])
@pytest.mark.parametrize("with_actions", [False, True])
def test_bytes_come_back_as_they_were(cache_dir, bf16_vlm, with_actions):
    policy = make_policy(cache_dir, bf16_vlm=bf16_vlm)
    observation = FastForward(policy).observe(make_inputs(policy))
    prefix = encode_prefix(policy, observation, with_actions)
    tokens = prefix.mask.shape[1]
    form = Form(tokens + 3, *prefix_heads(policy), prefix_dtypes(policy, with_actions), prefix.dtype)
    rows = form.pack(prefix)
    assert rows.shape == (3, form.bytes)
    mask = torch.nn.functional.pad(torch.ones(3, tokens, dtype=torch.bool), (0, 3))
    back = form.unpack(rows, mask)
    assert back.dtype == prefix.dtype
    for found, expected in zip(back.layers, prefix.layers, strict=True):
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


def test_held_out_frames_alone_where_all_have_no_room(generic_root, cache_dir, folder):
    config = cached(tiny_trial(generic_root, cache_dir, optim__samples=48), folder)
    plan = plan_cache(config, resolve(config))
    small = config.with_values({"runtime.cache_gb": (plan.bytes + plan.prefixes) * 0.9 / 1e9})
    trial = prepare(small)
    assert trial.training(0, 4)[0].prefix is None
    assert any("of the held-out frames" in line for line in trial.cache_lines)
    assert trial.maker.prefixes is not None
    assert trial.maker.prefixes.recorded(trial.frames.rows[:2]).mask.shape[0] == 2


def test_the_plan_is_an_upper_bound(generic_root, cache_dir, folder):
    config = cached(tiny_trial(generic_root, cache_dir, data__val_fraction=0.3), folder)
    plan = plan_cache(config, resolve(config))
    assert "keys and values" in plan.text()
    reports_of(config)
    used = sum(np.count_nonzero(np.fromfile(path / "written", np.uint8)) for path in folder.glob("*-prefixes-*"))
    (store,) = folder.glob("*-prefixes-*")
    size = (store / "data").stat().st_size // (store / "written").stat().st_size
    assert 0 < used * size <= plan.prefixes


def test_no_room_changes_no_number(generic_root, cache_dir, folder, monkeypatch, encoded):
    config = cached(tiny_trial(generic_root, cache_dir, eval__at=[8]), folder)
    expected = reports_of(config)
    monkeypatch.setattr(Store, "_write", lambda self, values: False)
    encoded.clear()
    assert reports_of(cached(config, folder.with_name("other"))) == expected
    assert encoded

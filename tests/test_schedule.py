"""Learning rates at hand-checked points."""

import pytest

from smolvla_core.config import OptimConfig
from smolvla_core.schedule import learning_rate


def test_constant():
    config = OptimConfig(samples=1000)
    assert {learning_rate(config, s) for s in (0, 500, 999)} == {1e-4}


def test_cosine_spans_the_full_budget():
    config = OptimConfig(samples=1000, schedule="cosine", final_lr=1e-6)
    assert learning_rate(config, 0) == pytest.approx(1e-4)
    assert learning_rate(config, 500) == pytest.approx((1e-4 + 1e-6) / 2)
    assert learning_rate(config, 1000) == pytest.approx(1e-6)
    assert learning_rate(config, 5000) == pytest.approx(1e-6)


def test_same_rate_at_the_same_samples_whatever_the_batch():
    rates = {learning_rate(OptimConfig(samples=1024, schedule="cosine", batch_size=b), 512) for b in (8, 16, 32)}
    assert len(rates) == 1


def test_warmup_is_linear_and_never_zero():
    config = OptimConfig(samples=1000, warmup_samples=80, batch_size=8)
    assert learning_rate(config, 0) == pytest.approx(1e-5)
    assert learning_rate(config, 40) == pytest.approx(6e-5)
    assert learning_rate(config, 80) == pytest.approx(1e-4)


def test_cosine_begins_after_the_warmup():
    config = OptimConfig(samples=1000, warmup_samples=200, schedule="cosine", final_lr=0.0)
    assert learning_rate(config, 200) == pytest.approx(1e-4)
    assert learning_rate(config, 600) == pytest.approx(5e-5)


def test_linear():
    config = OptimConfig(samples=1000, schedule="linear", final_lr=0.0)
    assert learning_rate(config, 250) == pytest.approx(7.5e-5)
    assert learning_rate(config, 1000) == 0.0


@pytest.mark.parametrize("warmup", [0, 40_000])
@pytest.mark.parametrize(("schedule", "end"), [("constant", 1e-4), ("cosine", 1e-6), ("linear", 1e-6)])
@pytest.mark.parametrize("batch_size", [8, 32])
def test_the_last_step_of_the_full_budget_has_the_final_rate(schedule, end, warmup, batch_size):
    config = OptimConfig(samples=800_000, schedule=schedule, warmup_samples=warmup, batch_size=batch_size)
    assert learning_rate(config, 800_000) == pytest.approx(end, rel=1e-9)
    assert learning_rate(config, 800_000 - batch_size) == pytest.approx(end, rel=5e-3)
    # and half of what lies after the warm-up is half of the way
    middle = learning_rate(config, (800_000 + warmup) // 2)
    assert middle == pytest.approx((1e-4 + end) / 2)

"""Ray's start and what a study asks of it."""

import pytest
import ray

from smolvla_core.errors import ConfigError
from tune.ray_session import OUT_OF_TIME, Brake, ray_session


def test_a_slow_start_is_tried_twice_and_then_one_line(monkeypatch):
    tries = []

    def slow(**options):
        tries.append(options)
        raise Exception("The current node timed out during startup.\nMore words.")

    monkeypatch.setattr(ray, "init", slow)
    with (
        pytest.raises(
            ConfigError, match=r"^Ray did not start \(The current node timed out during startup\.\)"
        ) as error,
        ray_session(),
    ):
        pass
    assert "\n" not in str(error.value)
    assert len(tries) == 2


def test_a_brake_is_pulled_by_hand_or_by_the_clock():
    free, due = Brake(None), Brake(0.0)
    assert not free.stop_all()
    free.pull("enough")
    assert free.stop_all()
    assert free.reason == "enough"
    assert due.stop_all()
    assert due.reason == OUT_OF_TIME

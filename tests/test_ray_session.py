"""Ray's start and what a study asks of it."""

import pytest
import ray

from smolvla_core.errors import ConfigError
from tune.ray_session import INTERRUPTED, OUT_OF_TIME, Brake, ray_session


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


@pytest.mark.parametrize("named", ["127.0.0.1:9", "ray://127.0.0.1:9", ""])
def test_a_cluster_that_is_gone_is_one_line_at_once(named, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", named)
    monkeypatch.setattr("tune.ray_session.read_ray_address", lambda: "127.0.0.1:9")  # as a killed `ray start` leaves it
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray was started"))
    names = "RAY_ADDRESS" if named else "`ray start`"
    says = f"the cluster at {named or '127.0.0.1:9'}, which {names} names, does not answer .*: export RAY_ADDRESS=local"
    with pytest.raises(ConfigError, match=says), ray_session():
        pass


def test_a_brake_is_pulled_by_hand_or_by_the_clock():
    free, due = Brake(None), Brake(0.0)
    assert not free.stop_all()
    free.pull("enough")
    assert free.stop_all()
    assert free.reason == "enough"
    assert due.stop_all()
    assert due.reason == OUT_OF_TIME


def test_a_search_that_is_asked_to_end_waits_for_states_but_not_for_ever(monkeypatch):
    marks = []
    monkeypatch.setattr("tune.notice._internal_kv_put", lambda key, value: marks.append(key))
    lines = []
    brake = Brake(None, say=lines.append)
    for number in range(3):
        brake.notice.started(number)
    brake.ask()
    assert not brake.stop_all()
    assert marks == [brake.notice.key]
    brake.notice.started(3)  # after the notice: nothing of it would be lost
    brake.notice.saved(0)
    brake.notice.ended(1)
    assert not brake.stop_all()
    brake.notice.saved(2)
    assert brake.stop_all()
    assert brake.reason == INTERRUPTED
    assert len(marks) == len(lines) == 1

    deaf = Brake(None)
    deaf.notice.started(0)
    deaf.ask()
    assert not deaf.stop_all()
    monkeypatch.setattr("tune.ray_session.GRACE_S", 0.0)
    assert deaf.stop_all()


def test_a_search_that_is_asked_to_end_while_nothing_runs_ends_at_once(monkeypatch):
    monkeypatch.setattr("tune.notice._internal_kv_put", lambda key, value: None)
    brake = Brake(None)
    brake.ask()
    assert brake.stop_all()

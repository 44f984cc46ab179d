"""Machines of a cluster that differ are found before the search starts; ``tests/test_cluster.py`` has real ones."""

from pathlib import Path

import pytest
import ray
from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError

from smolvla_core.errors import ConfigError
from tests.stub import stub_spec
from tune.nodes import Sight, check_nodes, compare, look

ROOTS, STORAGE = ["/data/eggs", "/data/more"], "/home/me/runs"
HERE = Sight("code", ("eggs", "more"), None)


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (Sight("other", ("eggs", "more"), None), "the machine 10.0.0.3 .* has another version of this package's code"),
        (Sight("code", ("eggs", None), None), "data.train.1.root: /data/more: no such folder on 10.0.0.3; copy the"),
        (Sight("code", ("old", "more"), None), "data.train.0.root: /data/eggs on 10.0.0.3 is another dataset than he"),
        (Sight("code", ("eggs", "more"), "not seen"), "storage: 10.0.0.3 cannot use /home/me/runs: not seen; set it"),
    ],
)
def test_a_machine_that_differs_is_named_with_what_to_do(there, words):
    compare("10.0.0.3", HERE, HERE, ROOTS, STORAGE)
    with pytest.raises(ConfigError, match=words):
        compare("10.0.0.3", there, HERE, ROOTS, STORAGE)


def test_another_dataset_is_told_by_its_metadata(tmp_path):
    marker = tmp_path / "marker"
    marker.touch()
    for name, frames in (("one", 100), ("same", 100), ("other", 101)):
        meta = tmp_path / name / "meta"
        meta.mkdir(parents=True)
        (meta / "info.json").write_text(f'{{"total_frames": {frames}}}')
    sights = {name: look([str(tmp_path / name)], str(marker)) for name in ("one", "same", "other", "absent")}
    assert sights["one"] == sights["same"]
    assert sights["one"].data != sights["other"].data
    assert sights["absent"].data == (None,)
    assert sights["one"].storage is None
    assert look([], str(Path("/nowhere/marker"))).storage is not None


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (NodeDiedError("its node died"), True),  # the cluster need not know yet
        (TaskUnschedulableError("the node doesn't exist any more"), True),
        (RayError("gone"), False),
        (RayError("gone"), True),
    ],
)
def test_a_machine_that_is_taken_away_while_it_is_asked_is_no_fault(monkeypatch, tmp_path, error, stays):
    here, there = (
        {"NodeID": digit * 56, "NodeManagerAddress": name, "Alive": True}
        for digit, name in (("1", "here"), ("2", "there"))
    )
    alive = iter([[here, there], [here, there] if stays else [here]])

    class Task:
        def options(self, scheduling_strategy):
            return type("At", (), {"remote": staticmethod(lambda *look_at: (scheduling_strategy.node_id, look_at))})

    def answer(asked, timeout):
        node, look_at = asked
        if node == there["NodeID"]:
            raise error
        return look(*look_at)

    monkeypatch.setattr(ray, "nodes", lambda: next(alive))
    monkeypatch.setattr(ray, "remote", lambda **options: lambda function: Task())
    monkeypatch.setattr(ray, "get", answer)
    spec = stub_spec(tmp_path)
    if stays and type(error) is RayError:
        with pytest.raises(ConfigError, match="the machine there of the Ray cluster failed"):
            check_nodes(spec, tmp_path / "study")
    else:
        check_nodes(spec, tmp_path / "study")

"""Points of a space as rows of numbers, and back."""

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tune.space import contains
from tune.unit_cube import ABSENT, UnitCube

SPACE = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "share": FloatDistribution(0.0, 1.0),
    "stepped": FloatDistribution(0.1, 0.7, step=0.2),
    "width": IntDistribution(1, 1024, log=True),
    "depth": IntDistribution(2, 10, step=4),
    "kind": CategoricalDistribution(("a", None, 3)),
}


def test_every_row_that_is_drawn_or_moved_is_a_point_of_the_space():
    cube, rng = UnitCube(SPACE), np.random.default_rng(0)
    drawn = cube.draw(200, rng)
    near = cube.near(drawn[:20], 20, 0.3, rng)
    for row in np.concatenate([drawn, near]):
        point = cube.point(row)
        assert all(contains(distribution, point[name]) for name, distribution in SPACE.items()), point
        assert cube.rows([point])[0] == pytest.approx(row, abs=1e-9)
    assert {cube.point(row)["depth"] for row in drawn} == {2, 6, 10}
    assert {cube.point(row)["kind"] for row in drawn} == {"a", None, 3}
    assert [cube.point(row)["stepped"] for row in drawn].count(0.1) > 20  # the ends are as likely as the rest


def test_neighbours_differ_a_little_and_somewhere():
    cube, rng = UnitCube({name: SPACE[name] for name in ("rate", "share")}), np.random.default_rng(0)
    row = np.array([[0.5, 0.5]])
    near = cube.near(row, 100, 0.02, rng)
    assert (np.abs(near - row).max(axis=1) > 0).all()
    assert np.abs(near - row).max() < 0.1


def test_what_is_not_active_stands_in_the_middle():
    cube = UnitCube(SPACE)
    (row,) = cube.rows([{"share": 0.25, "kind": 3}])
    assert row.tolist() == [ABSENT, 0.25, ABSENT, ABSENT, ABSENT, 2.0]
    (row,) = cube.rows([{name: SPACE[name].low for name in ("rate", "depth")} | {"kind": "a"}])
    assert row[0] == 0.0
    assert row[4] == pytest.approx(1 / 6)  # half a step from the edge

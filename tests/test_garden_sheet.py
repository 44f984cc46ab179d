"""Contact sheets: of the expert, and of a policy as it acts in an evaluation."""

import numpy as np
import pytest

pytest.importorskip("mujoco")

import torch
from PIL import Image

from smolvla_core.acting import load_actor
from smolvla_core.closed_loop.environment import GARDEN, EnvSpec
from smolvla_core.closed_loop.policies import ActorPolicy, Request
from smolvla_core.closed_loop.stage import Act, Begin, Stage
from smolvla_core.garden import GardenEnv
from smolvla_core.garden.sheet import TILE, contact_sheet, evenly, main, policy_actions
from tests.test_serve import export


@pytest.fixture(scope="module")
def policy(eggs_root, cache_dir, tmp_path_factory):
    return export(
        eggs_root,
        cache_dir,
        tmp_path_factory.mktemp("sheet") / "policy",
        state__preset="winner23",
        policy__n_action_steps=5,
    )


def test_the_expert_s_sheet_has_a_column_for_each_skill(tmp_path, capsys):
    out = tmp_path / "expert.png"
    assert main([str(out), "--instance", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: hiding_easter_eggs, instance 1, ")
    with Image.open(out) as sheet:
        assert sheet.height == 3 * TILE
        assert sheet.width >= 6 * TILE
        assert len(sheet.getcolors()) > 50


def test_a_policy_does_what_it_does_in_an_evaluation(policy):
    env = GardenEnv(picture_size=96, max_seconds=1.0)
    done = policy_actions(env, policy, 3)
    assert done.shape == (30, 23)
    acting = ActorPolicy(load_actor(policy, torch.device("cpu")))
    stage = Stage(EnvSpec(GARDEN, 96, True, 1.0, None))
    turn, chunks = stage.do(Begin(0, 3)), []
    while turn.episode is None:
        chunks.append(acting.chunks([Request(0, 3, len(chunks), turn.live)])[0])
        turn = stage.do(Act(0, chunks[-1]))
    np.testing.assert_array_equal(done, np.concatenate(chunks)[:30])
    sheet = contact_sheet(env, 3, done, evenly(len(done)))
    assert sheet.size == (9 * TILE, 3 * TILE)


def test_moments_are_evenly_apart():
    assert evenly(600) == [0, 75, 150, 225, 300, 374, 449, 524, 599]
    assert evenly(3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--policy", "/nowhere"], "/nowhere"), (["--task", "swimming"], "invalid choice")],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, message):
    try:
        code = main([str(tmp_path / "out.png"), *arguments])
    except SystemExit as ended:  # argparse's
        code = ended.code
    assert code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1

"""The 256 numbers of the garden's robot agree with MuJoCo's own state, key by key."""

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from smolvla_core.garden.proprio import Proprioception
from smolvla_core.garden.robot import ARM_JOINTS, CAMERAS, FINGER_JOINTS, SIDES, TRUNK_JOINTS
from smolvla_core.garden.world import resting_action
from smolvla_core.r1pro import CAMERA_POSES, RELEASES
from tests.garden_fixtures import wait, world_at

LAYOUT = RELEASES["2025"]


@pytest.fixture(scope="module")
def moving():
    """A world in the middle of a motion of everything, its vector, and the base's pose 1/120 s before."""
    world = world_at(2)
    action = resting_action()
    action[:3] = 0.5, 0.3, -0.7
    action[3:7] += [0.2, -0.2, 0.1, 0.3]
    action[7:14] += [0.3, 0.4, 0.3, 0.2, -0.5, 0.2, -0.3]
    action[15:22] += [-0.3, -0.2, 0.2, 0.3, 0.4, 0.3, 0.2]
    action[14], action[22] = -1.0, 0.2
    for _ in range(4):
        world.step(action)
    return world, Proprioception(world)()


def of(vector, key):
    return vector[LAYOUT[key].start : LAYOUT[key].stop]


def joints(world, names, what="qpos"):
    return np.array([getattr(world.data.joint(name), what)[0] for name in names])


def body_pose(world, name="base_link"):
    data = world.data.body(name)
    return data.xpos.copy(), Rotation.from_matrix(data.xmat.reshape(3, 3))


def test_joints_stand_in_behavior_s_order(moving):
    world, vector = moving
    both = [name for pair in zip(ARM_JOINTS["left"], ARM_JOINTS["right"], strict=True) for name in pair]
    names = [*TRUNK_JOINTS, *both, *FINGER_JOINTS["left"], *FINGER_JOINTS["right"]]
    for key, what in (("joint_qpos", "qpos"), ("joint_qvel", "qvel"), ("joint_qeffort", "qfrc_actuator")):
        expected = joints(world, names, what)
        assert np.abs(expected).max() > 0.05
        assert of(vector, key)[6:] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert of(vector, key)[[2, 3, 4]].tolist() == [0.0, 0.0, 0.0]
        assert of(vector, key)[[0, 1, 5]] == pytest.approx(
            joints(world, ("base_x", "base_y", "base_yaw"), what), rel=1e-5, abs=1e-5
        )
    assert of(vector, "joint_qpos_sin") == pytest.approx(np.sin(of(vector, "joint_qpos")), abs=1e-6)
    assert of(vector, "joint_qpos_cos") == pytest.approx(np.cos(of(vector, "joint_qpos")), abs=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_arms_and_grippers_are_the_joints_own(moving, side):
    world, vector = moving
    arm = joints(world, ARM_JOINTS[side])
    assert of(vector, f"arm_{side}_qpos") == pytest.approx(arm, abs=1e-6)
    assert of(vector, f"arm_{side}_qpos_sin") == pytest.approx(np.sin(arm), abs=1e-6)
    assert of(vector, f"arm_{side}_qpos_cos") == pytest.approx(np.cos(arm), abs=1e-6)
    assert of(vector, f"arm_{side}_qvel") == pytest.approx(joints(world, ARM_JOINTS[side], "qvel"), abs=1e-5)
    assert of(vector, f"gripper_{side}_qpos") == pytest.approx(joints(world, FINGER_JOINTS[side]), abs=1e-6)
    assert of(vector, f"gripper_{side}_qvel") == pytest.approx(joints(world, FINGER_JOINTS[side], "qvel"), abs=1e-5)


@pytest.mark.parametrize("side", SIDES)
def test_hands_are_seen_from_the_robot(moving, side):
    world, vector = moving
    place, turned = body_pose(world)
    fingers = [world.data.geom(name.replace("_joint", "")) for name in FINGER_JOINTS[side]]
    middle = turned.inv().apply(np.mean([finger.xpos for finger in fingers], axis=0) - place)
    position, rotation = of(vector, f"eef_{side}_pos"), Rotation.from_quat(of(vector, f"eef_{side}_quat"))
    assert np.linalg.norm(position - middle) < 0.05  # between the fingers, nearer to their tips
    wrist = turned.inv().apply(world.data.body(f"{side}_hand").xpos - place)
    out = (position - wrist) / np.linalg.norm(position - wrist)
    assert rotation.apply([0, 0, 1]) == pytest.approx(out, abs=1e-5)
    assert np.linalg.norm(of(vector, f"eef_{side}_quat")) == pytest.approx(1.0, abs=1e-6)


def test_trunk_and_base(moving):
    world, vector = moving
    place, turned = body_pose(world)
    yaw = turned.as_euler("zyx")[0]
    assert of(vector, "trunk_qpos") == pytest.approx(joints(world, TRUNK_JOINTS), abs=1e-6)
    assert of(vector, "trunk_qvel") == pytest.approx(joints(world, TRUNK_JOINTS, "qvel"), abs=1e-5)
    assert of(vector, "robot_pos") == pytest.approx(place, abs=1e-6)
    assert of(vector, "robot_2d_ori") == pytest.approx(yaw, abs=1e-5)
    assert of(vector, "robot_ori_cos") == pytest.approx([1, 1, np.cos(yaw)], abs=1e-5)
    assert of(vector, "robot_ori_sin") == pytest.approx([0, 0, np.sin(yaw)], abs=1e-5)
    assert of(vector, "base_qpos")[:2] == pytest.approx(place[:2], abs=1e-6)
    assert of(vector, "base_qpos_cos") == pytest.approx(np.cos(of(vector, "base_qpos")), abs=1e-6)
    speed = np.empty(6)
    mujoco.mj_objectVelocity(
        world.model, world.data, mujoco.mjtObj.mjOBJ_BODY, world.model.body("base_link").id, speed, 0
    )
    assert of(vector, "robot_lin_vel") == pytest.approx(speed[3:], abs=1e-5)
    assert of(vector, "robot_ang_vel") == pytest.approx(speed[:3], abs=1e-5)
    assert of(vector, "base_qvel") == pytest.approx([*turned.inv().apply(speed[3:])[:2], speed[2]], abs=1e-5)
    assert of(vector, "base_qvel") == pytest.approx([0.5, 0.3, -0.7], abs=0.12)  # as the action asked


def test_efforts_carry_the_arms():
    world = world_at(2)
    wait(world, 1.0)
    vector = Proprioception(world)()
    carried = joints(world, ARM_JOINTS["left"], "qfrc_bias")
    assert np.abs(carried).max() > 1.0
    assert of(vector, "joint_qeffort")[10:24:2] == pytest.approx(carried, abs=0.02)


def test_cameras_are_seen_from_the_robot_in_behavior_s_order(moving):
    world, _ = moving
    place, turned = body_pose(world)
    poses = Proprioception(world).camera_poses().reshape(3, 7)
    assert CAMERA_POSES == ("left_wrist", "right_wrist", "head")
    for name, pose in zip(CAMERA_POSES, poses, strict=True):
        camera = world.data.cam(CAMERAS[name])
        assert pose[:3] == pytest.approx(turned.inv().apply(camera.xpos - place), abs=1e-5)
        ahead = turned.inv().apply(camera.xmat.reshape(3, 3) @ [0, 0, -1])
        assert Rotation.from_quat(pose[3:]).apply([0, 0, -1]) == pytest.approx(ahead, abs=1e-5)

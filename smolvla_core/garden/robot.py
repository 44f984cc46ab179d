"""The garden's robot: R1Pro's degrees of freedom and limits, in simple shapes, as a MuJoCo model.

A planar base (x, y, yaw), a trunk of four joints, two arms of seven, and two grippers of two fingers.
Joint limits, order and the cameras' intrinsics are R1Pro's (BEHAVIOR-1K
``omnigibson/learning/utils/eval_utils.py``); link lengths are near its own, and no mesh is needed.

Frames: the base's x is forward, y left, z up. With all joints at zero the trunk stands and the arms hang
down. Metres, radians, kilograms.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import mujoco
import numpy as np
from numpy.typing import NDArray

from smolvla_core.r1pro import CAMERA_PIXELS, FOCAL_PX

Array = NDArray[np.float64]

SIDES = ("left", "right")
BASE_JOINTS = ("base_x", "base_y", "base_yaw")
TRUNK_JOINTS = tuple(f"torso_joint{i}" for i in range(1, 5))
ARM_JOINTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {side: tuple(f"{side}_arm_joint{i}" for i in range(1, 8)) for side in SIDES}
)
FINGER_JOINTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {side: tuple(f"{side}_gripper_finger_joint{i}" for i in (1, 2)) for side in SIDES}
)
CAMERAS: Mapping[str, str] = MappingProxyType(
    {"head": "zed", "left_wrist": "left_realsense", "right_wrist": "right_realsense"}
)
"""Names in the model, by BEHAVIOR's name of the camera."""

BASE_SPEED = np.array([0.75, 0.75, 1.0])
"""Most that an action may ask of the base: m/s forward and left, rad/s."""
TRUNK_LOW = np.array([-1.1345, -2.7925, -1.8326, -3.0543])
TRUNK_HIGH = np.array([1.8326, 2.5307, 1.5708, 3.0543])
_ARM_LOW = np.array([-4.4506, -0.1745, -2.3562, -2.0944, -2.3562, -1.0472, -1.5708])
_ARM_HIGH = np.array([1.3090, 3.1416, 2.3562, 0.3491, 2.3562, 1.0472, 1.5708])
ARM_LOW: Mapping[str, Array] = MappingProxyType(
    {"left": _ARM_LOW, "right": np.array([*_ARM_LOW[:1], -3.1416, *_ARM_LOW[2:]])}
)
ARM_HIGH: Mapping[str, Array] = MappingProxyType(
    {"left": _ARM_HIGH, "right": np.array([*_ARM_HIGH[:1], 0.1745, *_ARM_HIGH[2:]])}
)
FINGER_OPEN_M = 0.05
"""Of one finger; a gripper opens twice as wide."""

BASE_RADIUS_M = 0.26
TRUNK_DRIVE = np.array([1.2, -1.9, -1.0, 0.0])
"""The trunk's posture while the robot drives: half squatting, looking ahead."""
TRUNK_WORK = np.array([1.65, -2.6, -1.45, 0.0])
"""The trunk's posture while the hands work on the ground."""
_HOME = np.array([-0.07, 0.13, 0.03, -1.49, 0.12, -0.04, 1.27])
_MIRROR = np.array([1.0, -1.0, -1.0, 1.0, -1.0, -1.0, 1.0])
ARM_HOME: Mapping[str, Array] = MappingProxyType({"left": _HOME, "right": _HOME * _MIRROR})
"""The arms' posture at the start: hands before the robot, pointing down."""

_TRUNK_AXES = ((0, 1, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1))
_TRUNK_PLACES = ((-0.05, 0, 0.25), (0, 0, 0.33), (0, 0, 0.33), (0, 0, 0.20))
_SHOULDER = np.array([0.0, 0.16, 0.15])
_UPPER_ARM_M, _FOREARM_M = 0.37, 0.37
_ARM_AXES = ((0, 1, 0), (1, 0, 0), (0, 0, 1), (0, 1, 0), (0, 0, 1), (1, 0, 0), (0, 1, 0))
_ARM_PLACES = ((0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, -_UPPER_ARM_M), (0, 0, 0), (0, 0, -_FOREARM_M), (0, 0, 0))
GRIP_M = 0.17
"""From the wrist to the middle between the fingers."""
_HEAD = np.array([0.06, 0.0, 0.45])
_HEAD_PITCH = 0.47
_WRIST_CAMERA = np.array([0.0, 0.11, -0.06])

_GREY, _WHITE, _DARK = (0.35, 0.37, 0.40, 1), (0.85, 0.86, 0.88, 1), (0.12, 0.12, 0.14, 1)
_FINGERS = {"left": (0.15, 0.15, 0.17, 1), "right": (0.15, 0.15, 0.17, 1)}

_TOUCHING = {"contype": 0, "conaffinity": 1}
"""The base and the fingers touch what lies and stands around, and not each other."""
_SEEN = {"contype": 0, "conaffinity": 0}
"""A shape that is looked at only."""


def add_robot(spec: mujoco.MjSpec, *, mobile: bool = True) -> None:
    """Put the robot into a model, at the origin.

    Args:
        spec: to be compiled by the caller.
        mobile: False leaves out the base's joints and all actuators, for inverse kinematics in its frame.
    """
    spec.compiler.degree = False
    base = spec.worldbody.add_body(name="base_link")
    if mobile:
        for name, kind, axis in zip(BASE_JOINTS, "ssh", ((1, 0, 0), (0, 1, 0), (0, 0, 1)), strict=True):
            joint_type = mujoco.mjtJoint.mjJNT_SLIDE if kind == "s" else mujoco.mjtJoint.mjJNT_HINGE
            base.add_joint(name=name, type=joint_type, axis=axis)
    base.add_geom(
        name="base",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(BASE_RADIUS_M, 0.10, 0),
        pos=(0, 0, 0.14),
        mass=60,
        rgba=_GREY,
        **_TOUCHING,
    )
    link = base
    for i, (name, axis, place) in enumerate(zip(TRUNK_JOINTS, _TRUNK_AXES, _TRUNK_PLACES, strict=True)):
        link = link.add_body(name=f"torso_link{i + 1}", pos=place)
        _hinge(link, name, axis, TRUNK_LOW[i], TRUNK_HIGH[i], armature=1.0)
        if i < 3:
            _capsule(link, (0, 0, 0), _TRUNK_PLACES[i + 1], 0.07, 4.0, _GREY)
    _capsule(link, (0, -0.11, 0.15), (0, 0.11, 0.15), 0.075, 5.0, _WHITE)
    _capsule(link, (0, 0, 0.0), (0, 0, 0.3), 0.06, 3.0, _WHITE)
    _head(link)
    for side in SIDES:
        _arm(link, side)
    for body in spec.bodies:
        body.gravcomp = 1.0
    if mobile:
        _actuators(spec)


def _head(torso: mujoco.MjsBody) -> None:
    head = torso.add_body(name="zed_link", pos=_HEAD)
    head.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.03, 0.07, 0.03), pos=(-0.05, 0, 0), mass=1.0, rgba=_DARK, **_SEEN
    )
    forward = np.array([math.cos(_HEAD_PITCH), 0.0, -math.sin(_HEAD_PITCH)])
    _camera(head, "head", np.zeros(3), forward, right=np.array([0.0, -1.0, 0.0]))


def _arm(torso: mujoco.MjsBody, side: str) -> None:
    mirror = np.array([1.0, 1.0 if side == "left" else -1.0, 1.0])
    link = torso
    for i, (name, axis, place) in enumerate(zip(ARM_JOINTS[side], _ARM_AXES, _ARM_PLACES, strict=True)):
        where = _SHOULDER * mirror if i == 0 else np.asarray(place)
        link = link.add_body(name=f"{side}_arm_link{i + 1}", pos=where)
        _hinge(link, name, axis, ARM_LOW[side][i], ARM_HIGH[side][i], armature=0.3)
        if i == 2:
            _capsule(link, (0, 0, 0), (0, 0, -_UPPER_ARM_M), 0.045, 2.0, _WHITE)
        elif i == 4:
            _capsule(link, (0, 0, 0), (0, 0, -_FOREARM_M), 0.038, 1.5, _WHITE)
        else:
            link.mass, link.inertia, link.explicitinertial = 0.2, (2e-4, 2e-4, 2e-4), True
    _hand(link.add_body(name=f"{side}_hand"), side, mirror)


def _hand(hand: mujoco.MjsBody, side: str, mirror: Array) -> None:
    _capsule(hand, (0, 0, -0.02), (0, 0, -0.09), 0.03, 0.4, _DARK)
    hand.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.06, 0.02, 0.012), pos=(0, 0, -0.105), mass=0.1, rgba=_DARK, **_SEEN
    )
    # the frame of BEHAVIOR's end effector: z points out of the gripper
    hand.add_site(name=f"{side}_eef", pos=(0, 0, -GRIP_M), quat=(0, 1, 0, 0), size=(0.005, 0.005, 0.005), group=5)
    for name, sign in zip(FINGER_JOINTS[side], (1.0, -1.0), strict=True):
        finger = hand.add_body(name=name.replace("_joint", "_link"), pos=(0, 0, -0.115))
        finger.add_joint(
            name=name,
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=(sign, 0, 0),
            range=(0, FINGER_OPEN_M),
            limited=True,
            armature=0.2,
            actgravcomp=True,
        )
        finger.add_geom(
            name=name.replace("_joint", ""),
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=(0.006, 0.011, 0.038),
            pos=(sign * 0.006, 0, -0.038),
            mass=0.05,
            rgba=_FINGERS[side],
            **_TOUCHING,
            friction=(1.0, 0.005, 0.0001),
        )
    place = _WRIST_CAMERA * mirror
    _camera(hand, f"{side}_wrist", place, np.array([0.0, 0.0, -GRIP_M]) - place, up=np.array([1.0, 0.0, 0.0]))


def _hinge(body: mujoco.MjsBody, name: str, axis: tuple, low: float, high: float, armature: float) -> None:
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=axis,
        range=(low, high),
        limited=True,
        armature=armature,
        actgravcomp=True,
    )


def _capsule(body: mujoco.MjsBody, start: tuple, stop: tuple, radius: float, mass: float, rgba: tuple) -> None:
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=(*start, *stop),
        size=(radius, 0, 0),
        mass=mass,
        rgba=rgba,
        **_SEEN,
    )


def _camera(
    body: mujoco.MjsBody, name: str, place: Array, forward: Array, right: Array | None = None, up: Array | None = None
) -> None:
    back = -forward / np.linalg.norm(forward)
    if right is None and up is not None:
        right = np.asarray(np.cross(up, back))
    assert right is not None
    sideways = np.asarray(right / np.linalg.norm(right))
    rotation = np.stack([sideways, np.cross(back, sideways), back], axis=1)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, rotation.ravel())
    fovy = math.degrees(2 * math.atan(CAMERA_PIXELS[name] / 2 / FOCAL_PX[name]))
    body.add_camera(name=CAMERAS[name], pos=place, quat=quat, fovy=fovy)


def _actuators(spec: mujoco.MjSpec) -> None:
    for name, gain in zip(BASE_JOINTS, (2000.0, 2000.0, 800.0), strict=True):
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_velocity(kv=gain)
        actuator.forcerange, actuator.forcelimited = (-600.0, 600.0), True
    for names, gain, most in (
        (TRUNK_JOINTS, 20_000.0, 2000.0),
        (ARM_JOINTS["left"], 1000.0, 150.0),
        (ARM_JOINTS["right"], 1000.0, 150.0),
        (FINGER_JOINTS["left"], 400.0, 20.0),
        (FINGER_JOINTS["right"], 400.0, 20.0),
    ):
        for name in names:
            actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
            actuator.set_to_position(kp=gain, dampratio=2.0 if most < 50 else 1.0)
            actuator.forcerange, actuator.forcelimited = (-most, most), True

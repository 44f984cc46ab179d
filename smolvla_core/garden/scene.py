"""The garden as a MuJoCo model: a lawn, trees, a wicker basket with eggs in it, and the robot.

One model serves all instances: `arrange` moves and colours what is there. Shapes are simple and few
touch each other, since the physics has to run many times faster than real time on one core.
"""

import math

import mujoco
import numpy as np

from smolvla_core.garden.instance import EGGS, MOST_TREES, Instance
from smolvla_core.garden.robot import SIDES, add_robot

BASKET = "wicker_basket_1"
LAWN = "lawn_1"
EGG_NAMES = tuple(f"easter_egg_{i}" for i in range(1, EGGS + 1))
TOY_NAMES = tuple(f"toy_ball_{i}" for i in range(1, EGGS + 1))
"""What the eggs' bodies are called where they are toys."""
BLANKET = "blanket"
TREE_NAMES = tuple(f"tree_{i}" for i in range(1, MOST_TREES + 1))

PHYSICS_HZ = 120
EGG_RADIUS_M = 0.028
BASKET_RADIUS_M = 0.20
BASKET_HEIGHT_M = 0.09
TRUNK_RADIUS_M = 0.12
PARKED_M = 60.0
"""Where the trees stand that an instance does not have: beyond the lawn's edge."""

_FLOOR_M = 0.010
_WALLS = 8
_EGG_LENGTH = 1.3
"""An egg's length to its width."""
_HIDDEN = 5
"""A geom group that is not drawn."""
_SEEN = {"contype": 0, "conaffinity": 0}
_SHAPE = mujoco.mjtGeom


def weld_name(side: str, egg: str) -> str:
    """Name of the constraint that holds an egg in a hand."""
    return f"{side}_holds_{egg}"


def build_model() -> mujoco.MjModel:
    """The model of all instances."""
    spec = mujoco.MjSpec()
    spec.modelname = "egg_garden"
    spec.option.timestep = 1 / PHYSICS_HZ
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    # offscreen pictures: multisampling and shadow maps are what a software renderer spends its time on
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.numslices, spec.visual.quality.numstacks, spec.visual.quality.numquads = 16, 8, 2
    spec.visual.global_.offwidth = spec.visual.global_.offheight = 720
    spec.visual.map.znear, spec.visual.map.zfar = 0.01, 20.0
    spec.stat.extent, spec.stat.center = 2.0, (0, 0, 0)
    add_robot(spec)
    _lawn(spec)
    for name in TREE_NAMES:
        _tree(spec, name)
    _blanket(spec)
    _basket(spec)
    for name in EGG_NAMES:
        _egg(spec, name)
    for side in SIDES:
        for egg in EGG_NAMES:
            spec.add_equality(
                name=weld_name(side, egg),
                type=mujoco.mjtEq.mjEQ_WELD,
                objtype=mujoco.mjtObj.mjOBJ_BODY,
                name1=f"{side}_hand",
                name2=egg,
                active=False,
                solref=(0.03, 1.0),
            )
    return spec.compile()


def arrange(model: mujoco.MjModel, data: mujoco.MjData, instance: Instance) -> None:
    """Put everything but the robot where an instance has it, in its colours; ``data`` is reset."""
    mujoco.mj_resetData(model, data)
    for i, name in enumerate(TREE_NAMES):
        place = instance.trees[i] if i < len(instance.trees) else np.array([PARKED_M, PARKED_M])
        model.body_pos[model.body(name).id, :2] = place
        model.geom_rgba[model.geom(f"{name}_trunk").id, :3] = instance.bark
        model.geom_rgba[model.geom(f"{name}_crown").id, :3] = instance.crown
    spread = instance.eggs.mean(axis=0) if instance.toys else np.array([PARKED_M, PARKED_M])
    model.body_pos[model.body(BLANKET).id, :2] = spread
    _place(model, data, BASKET, instance.basket, 0.0, instance.basket_yaw)
    lies_at = EGG_RADIUS_M + (0.0 if instance.toys else _FLOOR_M)
    for name, place, colour in zip(EGG_NAMES, instance.eggs, instance.egg_colours, strict=True):
        _place(model, data, name, place, lies_at, 0.0)
        shell = model.geom(f"{name}_shell").id
        model.geom_rgba[shell, :3] = colour
        model.geom_size[shell, 2] = EGG_RADIUS_M * (1.0 if instance.toys else _EGG_LENGTH)
    for i in range(_WALLS):
        shade = 1.0 if i % 2 else 0.82
        model.geom_rgba[model.geom(f"{BASKET}_wall_{i}").id, :3] = shade * np.asarray(instance.wicker)
    model.geom_rgba[model.geom(f"{BASKET}_floor").id, :3] = 0.55 * np.asarray(instance.wicker)
    model.mat_rgba[model.material("grass").id, :3] = instance.lawn
    model.light_dir[model.light("sun").id] = instance.sun
    model.light_diffuse[model.light("sun").id] = 0.55 * instance.brightness
    model.vis.headlight.ambient[:] = 0.45 * instance.brightness
    model.vis.headlight.diffuse[:] = 0.15 * instance.brightness
    model.vis.headlight.specular[:] = 0.0


def _place(model: mujoco.MjModel, data: mujoco.MjData, name: str, place: np.ndarray, height: float, yaw: float) -> None:
    joint = data.joint(f"{name}_free")
    joint.qpos[:] = [*place, height, math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]
    joint.qvel[:] = 0.0


def _lawn(spec: mujoco.MjSpec) -> None:
    spec.add_texture(
        name="grass",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        mark=mujoco.mjtMark.mjMARK_RANDOM,
        random=0.06,
        rgb1=(0.36, 0.56, 0.28),
        markrgb=(0.26, 0.46, 0.20),
        width=128,
        height=128,
    )
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.45, 0.65, 0.90),
        rgb2=(0.85, 0.92, 0.98),
        width=64,
        height=384,
    )
    grass = spec.add_material(name="grass", texrepeat=(1.0, 1.0), texuniform=True, specular=0.0, shininess=0.0)
    textures = grass.textures
    textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "grass"
    grass.textures = textures
    lawn = spec.worldbody.add_body(name=LAWN)
    lawn.add_geom(name=LAWN, type=_SHAPE.mjGEOM_PLANE, size=(0, 0, 1), contype=1, conaffinity=1, group=_HIDDEN)
    # a plane is slow to draw, a flat box is not
    lawn.add_geom(
        name=f"{LAWN}_grass", type=_SHAPE.mjGEOM_BOX, size=(20, 20, 0.01), pos=(0, 0, -0.01), material="grass", **_SEEN
    )
    spec.worldbody.add_light(
        name="sun", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, castshadow=False, dir=(0, 0, -1), specular=(0, 0, 0)
    )


def _tree(spec: mujoco.MjSpec, name: str) -> None:
    tree = spec.worldbody.add_body(name=name)
    tree.add_geom(
        name=f"{name}_trunk",
        type=_SHAPE.mjGEOM_CYLINDER,
        size=(TRUNK_RADIUS_M, 0.9, 0),
        pos=(0, 0, 0.9),
        contype=1,
        conaffinity=1,
        rgba=(0.4, 0.3, 0.2, 1),
    )
    tree.add_geom(
        name=f"{name}_crown",
        type=_SHAPE.mjGEOM_ELLIPSOID,
        size=(0.8, 0.8, 0.7),
        pos=(0, 0, 2.2),
        rgba=(0.2, 0.5, 0.2, 1),
        **_SEEN,
    )
    # a ring of bark mulch shows a camera that looks down where the tree is
    tree.add_geom(
        name=f"{name}_mulch",
        type=_SHAPE.mjGEOM_CYLINDER,
        size=(0.32, 0.003, 0),
        pos=(0, 0, 0.001),
        rgba=(0.30, 0.20, 0.14, 1),
        **_SEEN,
    )


def _blanket(spec: mujoco.MjSpec) -> None:
    """What toys lie on, so that they can be seen from afar."""
    blanket = spec.worldbody.add_body(name=BLANKET)
    blanket.add_geom(
        name=BLANKET,
        type=_SHAPE.mjGEOM_CYLINDER,
        size=(0.24, 0.003, 0),
        pos=(0, 0, 0.001),
        rgba=(0.88, 0.90, 0.96, 1),
        **_SEEN,
    )


def _basket(spec: mujoco.MjSpec) -> None:
    basket = spec.worldbody.add_body(name=BASKET)
    basket.add_freejoint(name=f"{BASKET}_free")
    basket.add_geom(
        name=f"{BASKET}_floor",
        type=_SHAPE.mjGEOM_CYLINDER,
        size=(BASKET_RADIUS_M, _FLOOR_M / 2, 0),
        pos=(0, 0, _FLOOR_M / 2),
        mass=0.5,
        contype=1,
        conaffinity=1,
        friction=(0.9, 0.005, 0.0001),
    )
    half = BASKET_RADIUS_M * math.tan(math.pi / _WALLS)
    for i in range(_WALLS):
        angle = 2 * math.pi * i / _WALLS
        basket.add_geom(
            name=f"{BASKET}_wall_{i}",
            type=_SHAPE.mjGEOM_BOX,
            size=(0.006, half, (BASKET_HEIGHT_M - _FLOOR_M) / 2),
            pos=(
                BASKET_RADIUS_M * math.cos(angle),
                BASKET_RADIUS_M * math.sin(angle),
                (BASKET_HEIGHT_M + _FLOOR_M) / 2,
            ),
            quat=(math.cos(angle / 2), 0, 0, math.sin(angle / 2)),
            mass=0.06,
            contype=1,
            conaffinity=1,
        )


def _egg(spec: mujoco.MjSpec, name: str) -> None:
    egg = spec.worldbody.add_body(name=name)
    egg.add_freejoint(name=f"{name}_free")
    # a ball to touch, an egg to look at
    egg.add_geom(
        name=name,
        type=_SHAPE.mjGEOM_SPHERE,
        size=(EGG_RADIUS_M, 0, 0),
        mass=0.06,
        contype=1,
        conaffinity=1,
        condim=6,
        friction=(0.9, 0.02, 0.004),
        group=_HIDDEN,
    )
    egg.add_geom(
        name=f"{name}_shell",
        type=_SHAPE.mjGEOM_ELLIPSOID,
        size=(EGG_RADIUS_M, EGG_RADIUS_M, _EGG_LENGTH * EGG_RADIUS_M),
        quat=(math.cos(math.pi / 4), math.sin(math.pi / 4), 0, 0),
        mass=0,
        rgba=(1, 0, 0, 1),
        **_SEEN,
    )

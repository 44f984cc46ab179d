"""A scripted expert: takes the eggs out of the basket, two at a time, and lays them next to a tree.

It acts on the proprioception and the privileged poses of `task_info` alone. What it does follows from
what a policy can see, so that demonstrations agree with each other: it turns left until the basket is
in the head camera's view, drives straight to it, takes the leftmost egg with the left hand and the
rightmost with the right, carries them sideways to the tree nearest to the basket, and comes back for
what is left. A gripper that closed on nothing opens and tries again; a grasp may be made to go `astray`.
Toys it carries from the lawn to the basket in the same way (`errand`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from smolvla_core.garden.astray import EMPTY_FROM_M, Intention, Miss, draw_miss
from smolvla_core.garden.errand import Errand, HideEggs, Seen
from smolvla_core.garden.instance import EGGS, wrapped
from smolvla_core.garden.motion import TURN_SPEED, Drive, Hand, seen_from
from smolvla_core.garden.reach import Reach
from smolvla_core.garden.robot import SIDES, TRUNK_DRIVE, TRUNK_WORK
from smolvla_core.live import CONTROL_HZ
from smolvla_core.r1pro import ACTION, ACTION_WIDTH, RELEASES

Array = NDArray[np.float64]

STAND_M = 0.53
"""From the base's middle to what the hands work on."""
VISIBLE = math.radians(43)
"""What is nearer than this to straight ahead is well in the head camera's view."""
_HOME = {"left": np.array([0.42, 0.22, 0.32]), "right": np.array([0.42, -0.22, 0.32])}
_READY = {"left": np.array([0.45, 0.17, 0.27]), "right": np.array([0.45, -0.17, 0.27])}
_GRIP_HEIGHT_M, _UP_M = 0.045, 0.20
_CLOSING = round(0.53 * CONTROL_HZ)
_OPENING = round(0.33 * CONTROL_HZ)
_GRIPPER_RATE = 2 / (0.4 * CONTROL_HZ)
"""Most that a gripper's command changes in a frame: shut in 0.4 s."""
_HOLDS_FROM_M = 0.03
"""A closed gripper that is open wider than this holds something."""
_TRUNK_RATE = 1.1 / CONTROL_HZ
_GAZE, _GAZE_RATE = 0.4, 0.8 / CONTROL_HZ
"""Radians that the trunk turns to the left ahead of the base while the robot looks for the basket."""


@dataclass(frozen=True)
class Style:
    """How one demonstration differs from another."""

    speed: float = 1.0
    """Share of the full speed."""
    wait: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    """Frames by which each hand begins later."""
    heading: float = 0.0
    """Radians that it looks beside the basket's middle."""
    stand: float = STAND_M
    hover: float = 0.19
    """Height over the eggs from which a hand goes down."""
    misses: tuple[Miss | None, ...] = ()
    """Of the first attempts of the episode's grasps, in their order; those beyond find the egg."""


def draw_style(rng: np.random.Generator, misses: float = 0.15) -> Style:
    """A random style; ``misses`` is the share of grasps whose first attempt goes astray."""
    late = SIDES[int(rng.integers(2))]
    return Style(
        speed=float(rng.uniform(0.88, 1.0)),
        wait={side: int(rng.integers(0, 10)) if side == late else 0 for side in SIDES},
        heading=float(rng.uniform(-0.08, 0.08)),
        stand=STAND_M + float(rng.uniform(-0.015, 0.015)),
        hover=float(rng.uniform(0.17, 0.21)),
        misses=tuple(draw_miss(rng) if rng.random() < misses else None for _ in range(EGGS)),
    )


@dataclass
class Skill:
    """What is being done, in the words of BEHAVIOR's annotations; frames ``start`` up to ``stop``."""

    description: str
    objects: tuple[str, ...]
    manipulating: str
    start: int
    stop: int = -1


@dataclass
class _Task:
    """What one hand is doing with one egg."""

    egg: int
    skill: Skill
    step: str
    since: int = 0
    wait: int = 0
    slot: Array = field(default_factory=lambda: np.zeros(2))
    astray: Array | None = None
    """Where the hand goes, from the egg (2,), until it has been there."""
    closes: bool = True
    """Whether it closes the gripper there."""
    off: bool = False
    """Whether it is astray, or on its way back from there to over the egg."""


class Expert:
    """One episode's expert; `act` once for each frame.

    Args:
        style: how it does it; None: the plainest way.
        errand: what it does; None: it hides the eggs.
    """

    def __init__(self, style: Style | None = None, errand: Errand | None = None):
        self._errand: Errand = errand or HideEggs()
        self.style = style or Style()
        self.skills: list[Skill] = []
        """What was done so far, in order of its start; the last may be going on, with ``stop`` -1."""
        self.done = False
        """Whether every egg lies where it should."""
        self._reach = Reach()
        self._drive = Drive(self.style.speed)
        self._hands = {side: Hand(_HOME[side].copy(), self.style.speed) for side in SIDES}
        self._frame = 0
        self._phase = "look"
        self._bent, self._gaze = 0.0, 0.0
        self._heading: float | None = None
        self._tasks: dict[str, _Task | None] = dict.fromkeys(SIDES)
        self._carries: dict[str, int | None] = dict.fromkeys(SIDES)
        self._grip = dict.fromkeys(SIDES, 1.0)
        self._gripper = dict.fromkeys(SIDES, 1.0)
        self._misses = iter(self.style.misses)
        self._intention = Intention()
        self.meant: NDArray[np.float32] = np.zeros(ACTION_WIDTH, dtype=np.float32)
        """The last action (23,) as it should have been: another than what was done while a hand is astray."""

    def act(self, proprio: NDArray[np.floating], task_info: NDArray[np.floating]) -> NDArray[np.float32]:
        """What it does (23,) about what is measured (256,) and where things are (`World.task_info`).

        `meant` is then what should be done.
        """
        self._see(np.asarray(proprio, dtype=np.float64), np.asarray(task_info, dtype=np.float64).reshape(-1, 7))
        velocity = getattr(self, f"_{self._phase}")()
        hands = {side: self._hands[side].towards(self._hand_goal(side)) for side in SIDES}
        self._bent = float(np.clip(self._bent + (_TRUNK_RATE if self._near else -_TRUNK_RATE), 0.0, 1.0))
        eased = self._bent * self._bent * (3 - 2 * self._bent)
        trunk = TRUNK_DRIVE + eased * (TRUNK_WORK - TRUNK_DRIVE)
        wanted = _GAZE if self._phase == "look" else 0.0
        self._gaze += float(np.clip(wanted - self._gaze, -_GAZE_RATE, _GAZE_RATE))
        trunk[3] = self._gaze
        arms = self._reach.step(trunk, hands)
        action = np.zeros(ACTION_WIDTH)
        action[:3] = velocity
        action[ACTION["trunk"].start : ACTION["trunk"].stop] = trunk
        for side in SIDES:
            dims = ACTION[f"arm_{side}"]
            action[dims.start : dims.stop] = arms[side]
            change = self._grip[side] - self._gripper[side]
            self._gripper[side] += float(np.clip(change, -_GRIPPER_RATE, _GRIPPER_RATE))
            action[ACTION[f"gripper_{side}"].start] = self._gripper[side]
        self._frame += 1
        self.meant = action.astype(np.float32)
        for side, joints in self._intention.arms(trunk, arms, self._hands, self._astray()).items():
            dims = ACTION[f"arm_{side}"]
            self.meant[dims.start : dims.stop] = joints
            self.meant[ACTION[f"gripper_{side}"].start] = 1.0
        return action.astype(np.float32)

    def finish(self) -> list[Skill]:
        """The skills of the episode, each with its end."""
        for skill in self.skills:
            skill.stop = self._frame if skill.stop < 0 else skill.stop
        return [skill for skill in self.skills if skill.stop > skill.start]

    def _see(self, proprio: Array, poses: Array) -> None:
        def of(key: str) -> Array:
            dims = RELEASES["2025"][key]
            return proprio[dims.start : dims.stop]

        self._base = np.array([*of("robot_pos")[:2], of("robot_2d_ori")[0]])
        self._at = {side: of(f"eef_{side}_pos") for side in SIDES}
        self._opening = {side: float(of(f"gripper_{side}_qpos").sum()) for side in SIDES}
        basket, trees = poses[0, :2], poses[1 + EGGS :, :2]
        if self._frame == 0:
            self._tree = int(np.argmin(np.linalg.norm(trees - basket, axis=1)))
        self._seen = Seen(basket, poses[1 : 1 + EGGS, :3], trees, self._tree)
        self._looks = float(of("trunk_qpos")[3])

    # the phases: each returns the base's velocity, and says which comes next

    def _look(self) -> Array:
        place, things = self._errand.next(self._seen, self._errand.left(self._seen))
        self._begin("move to", self._errand.towards(self._seen, things))
        if abs(wrapped(self._bearing(place) - self._looks)) > VISIBLE:
            return self._drive.turn(TURN_SPEED * self.style.speed)
        self._phase = "fetch"
        return self._fetch()

    def _fetch(self) -> Array:
        """To where things are."""
        left = self._errand.left(self._seen)
        if not left:
            self._phase = "rest"
            return self._rest()
        place, things = self._errand.next(self._seen, left)
        if self._heading is None:
            self._heading = self._base[2] + self._bearing(place) + self.style.heading
        self._begin("move to", self._errand.towards(self._seen, things))
        goal = self._stand(place)
        if self._arrived(goal, 0.08):
            self._end("move to")
            self._assign(things, place)
            self._phase = "pick"
        return self._drive.towards(self._base, goal)

    def _pick(self) -> Array:
        for side, task in self._tasks.items():
            if task is not None:
                self._advance_pick(side, task)
        if not any(self._tasks.values()):
            self._phase = "carry" if any(egg is not None for egg in self._carries.values()) else "fetch"
        return self._drive.towards(self._base, self._goal)

    def _carry(self) -> Array:
        target = self._errand.target(self._seen)
        self._begin("move to", target[-1:])
        goal = self._stand(self._errand.drop(self._seen))
        if self._arrived(goal, 0.10):
            self._end("move to")
            taken: list[Array] = []
            for side in SIDES:
                egg = self._carries[side]
                if egg is not None:
                    name = self._errand.things[egg]
                    task = _Task(egg, self._new(self._errand.place, (name, *target), name), "lower")
                    task.wait, task.slot = self.style.wait[side], self._free_slot(side, taken)
                    taken.append(task.slot)
                    self._tasks[side] = task
            self._phase = "place"
        return self._drive.towards(self._base, goal)

    def _place(self) -> Array:
        for side, task in self._tasks.items():
            if task is not None:
                self._advance_place(side, task)
        if not any(self._tasks.values()):
            self._phase = "fetch"
        return self._drive.towards(self._base, self._goal)

    def _rest(self) -> Array:
        self.done = True
        return self._drive.turn(0.0)

    # what one hand does

    def _advance_pick(self, side: str, task: _Task) -> None:
        if task.wait > 0:
            task.wait -= 1
            return
        task.since += 1
        goal, at = self._hand_goal(side), self._at[side]
        if task.step == "hover" and np.linalg.norm(at[:2] - goal[:2]) < 0.025 and abs(at[2] - goal[2]) < 0.05:
            task.off = task.astray is not None
            self._go(task, "descend")
        elif task.step == "descend" and abs(at[2] - goal[2]) < 0.015 and np.linalg.norm(at[:2] - goal[:2]) < 0.025:
            if task.astray is not None and not (task.closes and self._nearest(at) > EMPTY_FROM_M):
                task.astray = None
                self._go(task, "hover")
            else:
                self._grip[side] = -1.0
                self._go(task, "close")
        elif task.step == "close" and task.since >= _CLOSING:
            if self._opening[side] > _HOLDS_FROM_M:
                self._carries[side], task.off = task.egg, False
            else:
                self._grip[side] = 1.0
            self._go(task, "lift" if task.astray is None else "hover")
            task.astray = None
        elif task.step == "lift" and at[2] > _UP_M - 0.02:
            if self._carries[side] is None:
                self._go(task, "hover")
            else:
                task.skill.stop = self._frame
                self._tasks[side] = None
        elif task.since > 3 * CONTROL_HZ:
            task.astray = None
            self._grip[side] = 1.0
            self._go(task, "hover")

    def _advance_place(self, side: str, task: _Task) -> None:
        if task.wait > 0:
            task.wait -= 1
            return
        task.since += 1
        goal, at = self._hand_goal(side), self._at[side]
        if task.step == "lower" and (np.linalg.norm(at - goal) < 0.045 or task.since > 2 * CONTROL_HZ):
            self._grip[side] = 1.0
            self._go(task, "open")
        elif task.step == "open" and task.since >= _OPENING:
            self._carries[side] = None
            self._go(task, "raise")
        elif task.step == "raise" and at[2] > 0.12:
            task.skill.stop = self._frame
            self._tasks[side] = None

    def _hand_goal(self, side: str) -> Array:
        """Where a hand should go, in the robot's frame."""
        ready = _READY[side] if self._near else _HOME[side]
        task = self._tasks[side]
        if task is None or task.wait > 0:
            return ready
        if self._phase == "place":
            height = self._errand.drop_height if task.step in ("lower", "open") else ready[2]
            return np.array([*task.slot, height])
        if task.step == "lift":
            return np.array([*self._at[side][:2], ready[2]])
        spot = self._seen.things[task.egg, :2]
        if task.astray is not None:
            spot = spot + task.astray
        height = self.style.hover if task.step == "hover" else _GRIP_HEIGHT_M
        return np.array([*seen_from(self._base, spot), height])

    def _nearest(self, hand: Array) -> float:
        """Metres from a hand, in the robot's frame, to the nearest egg, on the ground."""
        eggs = seen_from(self._base, self._seen.things[:, :2])
        return float(np.linalg.norm(eggs - hand[:2], axis=1).min())

    def _astray(self) -> dict[str, Array]:
        """Where each hand that is astray should be, in the robot's frame: over its egg."""
        tasks = ((side, task) for side, task in self._tasks.items() if task is not None and task.wait <= 0)
        return {
            side: np.array([*seen_from(self._base, self._seen.things[task.egg, :2]), self.style.hover])
            for side, task in tasks
            if task.off
        }

    # what it knows

    @property
    def _near(self) -> bool:
        """Whether the hands are about to work: the trunk bends, the hands come before the robot."""
        return self._phase in ("pick", "carry", "place") or (
            self._phase == "fetch" and float(np.linalg.norm(self._goal[:2] - self._base[:2])) < 0.8
        )

    def _bearing(self, place: Array) -> float:
        return float(np.arctan2(*seen_from(self._base, place)[::-1]))

    def _assign(self, eggs: list[int], middle: Array) -> None:
        """The leftmost egg to the left hand, the rightmost to the right; one alone to the hand on its side."""
        level = seen_from(self._base, self._seen.things[:, :2])[:, 1]
        order = sorted(eggs, key=lambda i: -level[i])
        wanted = {"left": order[0], "right": order[-1]}
        if len(order) == 1:
            wanted = {"left" if level[order[0]] > 0 else "right": order[0]}
        for side, egg in wanted.items():
            name = self._errand.things[egg]
            skill = self._new("pick up from", (name, self._errand.source), name)
            task = _Task(egg, skill, "hover", wait=self.style.wait[side])
            if (miss := next(self._misses, None)) is not None:
                task.astray, task.closes = miss.offset(self._seen.things[egg, :2], middle), miss.closes
                task.off = True
            self._tasks[side] = task

    def _free_slot(self, side: str, taken: list[Array]) -> Array:
        let_go = [i for i in range(EGGS) if i not in self._carries.values()]
        lying = list(seen_from(self._base, self._seen.things[let_go, :2]))
        for slot in self._errand.slots[side]:
            if all(np.linalg.norm(np.asarray(slot) - other) > 0.10 for other in (*lying, *taken)):
                return np.asarray(slot)
        return np.asarray(self._errand.slots[side][0])

    def _stand(self, target: Array) -> Array:
        """The base's pose (3,) before a point, looking as it came; kept as the goal of the phase."""
        assert self._heading is not None
        ahead = self.style.stand * np.array([math.cos(self._heading), math.sin(self._heading)])
        self._goal = np.array([*(target - ahead), self._heading])
        return self._goal

    def _arrived(self, goal: Array, within: float) -> bool:
        return (
            float(np.linalg.norm(goal[:2] - self._base[:2])) < within and abs(wrapped(goal[2] - self._base[2])) < 0.08
        )

    def _go(self, task: _Task, step: str) -> None:
        task.step, task.since = step, 0

    def _new(self, description: str, objects: tuple[str, ...], manipulating: str = "") -> Skill:
        skill = Skill(description, objects, manipulating, self._frame)
        self.skills.append(skill)
        return skill

    def _begin(self, description: str, objects: tuple[str, ...]) -> None:
        """Start a skill unless it is going on."""
        if not any(s.description == description and s.stop < 0 for s in self.skills):
            self._new(description, objects)

    def _end(self, description: str) -> None:
        for skill in self.skills:
            if skill.description == description and skill.stop < 0:
                skill.stop = self._frame

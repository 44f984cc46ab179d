"""The egg garden as a Gymnasium environment, in BEHAVIOR's live format."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from smolvla_core.data.behavior.layout import CAM_POSES_WIDTH, instruction
from smolvla_core.errors import UserError
from smolvla_core.garden.cameras import Cameras
from smolvla_core.garden.goal import Score, score
from smolvla_core.garden.proprio import WIDTH, Proprioception
from smolvla_core.garden.tasks import TASKS
from smolvla_core.garden.world import HIGH, LOW, World
from smolvla_core.live import CAMERAS, CONTROL_HZ, PROPRIOCEPTION
from smolvla_core.r1pro import CAMERA_PIXELS

CAM_REL_POSES = "robot_r1::cam_rel_poses"

SMALLEST_PICTURE, LARGEST_PICTURE = 16, 1024
MOST_INSTANCES = 1_000_000

Observation = dict[str, Any]


class GardenEnv(gymnasium.Env[Observation, NDArray[np.float32]]):
    """Hide the three eggs of a basket next to a tree; or pick up toys (``task="picking_up_toys"``).

    Observations have BEHAVIOR's live keys: ``robot_r1::proprio`` (256,), a picture (H, W, 3) uint8 for
    each camera, ``robot_r1::cam_rel_poses`` (21,), ``task_id``. Actions (23,) have its meaning: the
    base's velocity, absolute joint positions, grippers from -1 (closed) to 1 (open), at 30 Hz.

    ``info`` holds ``eggs_placed``, ``q``, ``success``, ``literals``, ``instance`` and the privileged
    ``task_info``: poses (7,) of basket, eggs or toys, and trees in the world, which no policy may see.

    Args:
        task: one of `TASKS`.
        picture_size: pixels to a side of every camera; None takes BEHAVIOR's 720 (head) and 480 (wrists).
        pictures: whether observations hold pictures; without them no EGL is needed.
        max_seconds: when an episode is cut off.
        render_mode: None, or ``rgb_array`` for `render`.

    Raises:
        UserError: an argument is out of range, or pictures cannot be rendered on this machine.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(
        self,
        *,
        task: str = "hiding_easter_eggs",
        picture_size: int | None = None,
        pictures: bool = True,
        max_seconds: float = 20.0,
        render_mode: str | None = None,
    ):
        if task not in TASKS:
            raise UserError(f"task: the garden has no '{task}'; it has {', '.join(TASKS)}")
        if picture_size is not None and not SMALLEST_PICTURE <= picture_size <= LARGEST_PICTURE:
            raise UserError(
                f"picture_size is {picture_size}; it must be {SMALLEST_PICTURE} to {LARGEST_PICTURE} pixels"
            )
        if not 1 / CONTROL_HZ <= max_seconds <= 3600:
            raise UserError(f"max_seconds is {max_seconds:g}; it must be from one step (1/{CONTROL_HZ}) to 3600")
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode is '{render_mode}'; the garden has rgb_array only")
        self.task, self.task_id = task, TASKS[task].number
        self._draw, self._goal = TASKS[task].draw, TASKS[task].goal
        self.task_description = instruction(self.task_id)
        self.render_mode = render_mode
        self.max_steps = round(max_seconds * CONTROL_HZ)
        self.pixels = {name: picture_size or pixels for name, pixels in CAMERA_PIXELS.items()}
        self.world = World()
        self._proprioception = Proprioception(self.world)
        self._cameras = Cameras(self.world.model, self.pixels) if pictures or render_mode else None
        self._with_pictures = pictures
        self._steps = 0
        self._at_start: dict[str, bool] = {}
        self.action_space = spaces.Box(LOW.astype(np.float32), HIGH.astype(np.float32))
        self.observation_space = self._space()

    @property
    def pictures(self) -> bool:
        """Whether observations from now on hold pictures; to be set where nobody looks at those in between."""
        return self._with_pictures

    @pictures.setter
    def pictures(self, wanted: bool) -> None:
        self._with_pictures = wanted and self._cameras is not None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict]:
        """Begin an episode.

        Args:
            seed: draws the instance where ``options`` names none.
            options: ``{"instance": n}`` with n from 0, which determines the scene.

        Raises:
            UserError: the instance is no such number.
        """
        super().reset(seed=seed)
        number = (options or {}).get("instance")
        if number is None:
            number = int(self.np_random.integers(MOST_INSTANCES))
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
            raise UserError(f"options: instance is {number!r}; it must be a whole number from 0")
        self.world.reset(self._draw(int(number)))
        self._steps = 0
        self._at_start = self._goal.literals(self.world)
        return self._observation(), self._info(score(self.world, self._at_start, self._goal))

    def step(self, action: NDArray[np.floating]) -> tuple[Observation, float, bool, bool, dict]:
        """Do an action (23,) for 1/30 s; it is cut to its limits. The reward is 1 on success, else 0.

        Raises:
            UserError: not 23 finite numbers, or no episode has begun.
        """
        if self.world.instance is None:
            raise UserError("step: no episode has begun; call reset first")
        self.world.step(action)
        self._steps += 1
        now = score(self.world, self._at_start, self._goal)
        return (
            self._observation(),
            float(now.success),
            now.success,
            self._steps >= self.max_steps,
            self._info(now),
        )

    def render(self) -> NDArray[np.uint8] | None:
        """What the head camera sees, (H, W, 3); None without ``render_mode``."""
        if self.render_mode is None or self._cameras is None:
            return None
        return self._cameras.pictures(self.world.data, ["head"])["head"]

    def close(self) -> None:
        """Free the graphics."""
        if self._cameras is not None:
            self._cameras.close()

    def _observation(self) -> Observation:
        observation: Observation = {PROPRIOCEPTION: self._proprioception()}
        if self._with_pictures and self._cameras is not None:
            pictures = self._cameras.pictures(self.world.data)
            observation |= {CAMERAS[name]: picture for name, picture in pictures.items()}
        observation[CAM_REL_POSES] = self._proprioception.camera_poses()
        observation["task_id"] = self.task_id
        return observation

    def _info(self, now: Score) -> dict[str, Any]:
        assert self.world.instance is not None
        return {
            "eggs_placed": now.eggs_placed,
            "q": now.q,
            "success": now.success,
            "is_success": now.success,
            "literals": dict(now.literals),
            "instance": self.world.instance.number,
            "task_info": self.world.task_info(),
        }

    def _space(self) -> spaces.Dict:
        def numbers(width: int) -> spaces.Box:
            return spaces.Box(-np.inf, np.inf, (width,), np.float32)

        boxes: dict[str, spaces.Space] = {PROPRIOCEPTION: numbers(WIDTH)}
        if self._with_pictures:
            boxes |= {
                CAMERAS[name]: spaces.Box(0, 255, (pixels, pixels, 3), np.uint8) for name, pixels in self.pixels.items()
            }
        boxes |= {CAM_REL_POSES: numbers(CAM_POSES_WIDTH), "task_id": spaces.Discrete(50)}
        return spaces.Dict(boxes)

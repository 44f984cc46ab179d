r"""The garden for ``lerobot-eval``: observations under the names that an imported dataset gives them.

    lerobot-eval --env.discover_packages_path=smolvla_core.garden --env.type=egg_garden \
        --policy.path=runs/.../best --eval.n_episodes=20 --eval.batch_size=4

LeRobot draws an episode's instance from its seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from numpy.typing import NDArray

from smolvla_core.garden.env import GardenEnv, Observation
from smolvla_core.garden.proprio import WIDTH
from smolvla_core.live import CAMERAS, PROPRIOCEPTION
from smolvla_core.r1pro import ACTION_WIDTH, CAMERA_PIXELS

GYM_ID = "smolvla_core/EggGardenLeRobot-v0"
IMAGE_NAMES: Mapping[str, str] = {camera: f"rgb.{camera}" for camera in CAMERA_PIXELS}
"""Names after ``observation.images.``, by camera."""


class LeRobotGarden(gymnasium.ObservationWrapper[Any, Any, Any]):
    """`GardenEnv` with LeRobot's ``pixels`` and ``agent_pos``; what it adds is nothing a policy may not see.

    Args:
        options: `GardenEnv`'s arguments.
    """

    def __init__(self, **options: Any):
        self.garden = GardenEnv(**options)
        super().__init__(self.garden)
        self.task_description = self.garden.task_description
        self.task = self.garden.task
        self._max_episode_steps = self.garden.max_steps
        seen = self.garden.observation_space
        assert isinstance(seen, spaces.Dict)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict({IMAGE_NAMES[camera]: seen[key] for camera, key in CAMERAS.items()}),
                "agent_pos": seen[PROPRIOCEPTION],
            }
        )

    def observation(self, observation: Observation) -> dict[str, Any]:
        """The pictures (H, W, 3) and the state (256,)."""
        pixels: dict[str, NDArray[np.uint8]] = {IMAGE_NAMES[name]: observation[key] for name, key in CAMERAS.items()}
        return {"pixels": pixels, "agent_pos": observation[PROPRIOCEPTION]}


if GYM_ID not in gymnasium.registry:
    gymnasium.register(GYM_ID, entry_point=LeRobotGarden)


@EnvConfig.register_subclass("egg_garden")
@dataclass
class EggGardenConfig(EnvConfig):
    """``--env.type=egg_garden``."""

    task: str | None = "hiding_easter_eggs"
    fps: int = 30
    picture_size: int = 96
    max_seconds: float = 30.0
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.features = {
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(ACTION_WIDTH,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(WIDTH,)),
        }
        self.features_map = {"action": "action", "agent_pos": "observation.state"}
        for name in IMAGE_NAMES.values():
            shape = (self.picture_size, self.picture_size, 3)
            self.features[f"pixels/{name}"] = PolicyFeature(type=FeatureType.VISUAL, shape=shape)
            self.features_map[f"pixels/{name}"] = f"observation.images.{name}"

    @property
    def gym_id(self) -> str:
        """The id that ``gymnasium.make`` is given."""
        return GYM_ID

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of the environment."""
        return {
            "task": self.task,
            "picture_size": self.picture_size,
            "max_seconds": self.max_seconds,
            "render_mode": "rgb_array",
        }

"""The egg garden: BEHAVIOR's task of hiding Easter eggs as small MuJoCo physics, for any machine.

``GardenEnv`` is a Gymnasium environment, registered as ``smolvla_core/EggGarden-v0``. Needs the extra
``sim`` (mujoco, mink, gymnasium).
"""

from smolvla_core.errors import UserError

try:
    import gymnasium
    import mink  # noqa: F401
    import mujoco  # noqa: F401
except ImportError as error:
    raise UserError(
        f"smolvla_core.garden: the package '{error.name}' is missing; pip install 'smolvla-tune[sim]'"
    ) from None

from smolvla_core.garden.env import GardenEnv

GYM_ID = "smolvla_core/EggGarden-v0"
if GYM_ID not in gymnasium.registry:
    gymnasium.register(GYM_ID, entry_point="smolvla_core.garden.env:GardenEnv")

__all__ = ["GYM_ID", "GardenEnv"]

"""What of a search's ``closed_loop`` can be known to be wrong before anything is trained."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from smolvla_core.config import TrialConfig
from smolvla_core.errors import UserError
from smolvla_core.live import camera_of
from smolvla_core.r1pro import ACTION_WIDTH
from tune.closed_loop_spec import ClosedLoop
from tune.source import SpecError

if TYPE_CHECKING:
    from smolvla_core.interface import Interface


def refuse_environment(closed_loop: ClosedLoop) -> None:
    """Make one, so that what it lacks is known before anything is trained.

    Raises:
        SpecError: it cannot be made here.
    """
    try:
        env = closed_loop.environment.make()
        env.reset(options={"instance": closed_loop.numbers[0]})
        env.close()
    except UserError as error:
        raise SpecError(("closed_loop",), str(error).removeprefix("env: ")) from None


def refuse_unsuited(closed_loop: ClosedLoop, interface: "Interface", configs: Sequence[TrialConfig]) -> None:
    """Refuse policies that could not act in it.

    Args:
        closed_loop: what they are to act in.
        interface: what they see and do.
        configs: of every branch of the space.

    Raises:
        SpecError: another robot's, another rate's, or with too short a chunk.
    """
    place = ("closed_loop",)
    if interface.action_width != ACTION_WIDTH:
        raise SpecError(
            place,
            f"an R1Pro acts in it, whose actions have {ACTION_WIDTH} dims; the dataset's have "
            f"{interface.action_width}; remove it",
        )
    odd = next((view.dataset_key for view in interface.cameras if camera_of(view.dataset_key) is None), None)
    if odd is not None:
        raise SpecError(place, f"the policy would look through '{odd}', which is none of an R1Pro's cameras; remove it")
    hz = closed_loop.environment.control_hz()
    for config in configs:
        own = interface.fps / config.data.frame_stride
        if abs(hz / own - round(hz / own)) > 1e-6 or hz < own:
            raise SpecError(
                place,
                f"it is acted in at {hz:g} Hz, which is no multiple of a policy's {own:g} Hz (data.frame_stride "
                f"{config.data.frame_stride}); take strides whose rate divides it",
            )
        chunk, choose = config.policy.chunk_size, closed_loop.choose
        if closed_loop.n_action_steps is not None and closed_loop.n_action_steps > chunk:
            raise SpecError(
                ("closed_loop", "n_action_steps"),
                f"is {closed_loop.n_action_steps}; it cannot exceed policy.chunk_size ({chunk})",
            )
        if choose is not None and choose.n_action_steps and min(choose.n_action_steps) > chunk:
            raise SpecError(
                ("closed_loop", "choose", "n_action_steps"),
                f"has none that policy.chunk_size ({chunk}) allows; add one of 1 to {chunk}",
            )

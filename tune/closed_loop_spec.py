"""``closed_loop``: the part of a search's YAML that says what policies act in, and what that decides."""

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from smolvla_core.closed_loop.environment import AT_ONCE, GARDEN, SMALL_PICTURES, EnvSpec, parse_instances
from smolvla_core.config import Section
from smolvla_core.errors import ConfigError


class _OnInstances(Section):
    """Something that policies do on instances of an environment."""

    instances: str

    @field_validator("instances", mode="before")
    @classmethod
    def _as_text(cls, instances: Any) -> Any:
        return ",".join(map(str, instances)) if isinstance(instances, list | tuple) else str(instances)

    @field_validator("instances")
    @classmethod
    def _numbers(cls, instances: str) -> str:
        try:
            parse_instances(instances)
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("instances: ")) from None
        return instances

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the instances."""
        return parse_instances(self.instances)


class Choice(_OnInstances):
    """The trials at the top rung act before the finalists are chosen, and what they achieve ranks them."""

    instances: str = Field(default="201-220", examples=["201-220"])
    """None that the finalists act on: a policy that was chosen on them is flattered by them."""
    n_action_steps: tuple[int, ...] = Field(default=(), examples=["[2, 5, 10]"])
    """Actions of a chunk that are done before the policy is asked again: each trial acts with each of
    those that its chunk has, and keeps the best. Empty: as the trial's policy has it."""

    @field_validator("n_action_steps")
    @classmethod
    def _steps(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if any(step < 1 for step in steps) or len(set(steps)) < len(steps):
            raise ValueError("must be different whole numbers from 1 on")
        return steps


class ClosedLoop(_OnInstances):
    """What the finalists act in once they are trained, and on which instances; see ``smolvla_core.closed_loop``."""

    env: str = GARDEN
    """``garden``, or an environment of one's own as ``package.module:factory``."""
    task: str | None = None
    """Of the environment's. None: its own."""
    instances: str = Field(default="301-340", examples=["301-340"])
    picture_size: int | None = Field(default=SMALL_PICTURES, ge=16)
    """Pixels to a side of all cameras. None: BEHAVIOR's 720 and 480."""
    max_seconds: float | None = Field(default=None, gt=0)
    """The longest an episode lasts. None: the environment's own."""
    n_action_steps: int | None = Field(default=None, ge=1)
    """Actions of a chunk that are done before the policy is asked again. None: the policy's own."""
    instruction: str | None = None
    """What the policy is told. None: what it was told in training, where that is one."""
    at_once: int = Field(default=AT_ONCE, ge=1)
    """Environments side by side."""
    jobs: int = Field(default=1, ge=1)
    """Processes that step them."""
    choose: Choice | None = Field(default=None, examples=["{instances: 201-220, n_action_steps: [2, 5, 10]}"])
    """Let the acting decide between the trials at the top rung, and between the finalists. None: the
    objective and the test episodes do."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.choose is None:
            return self
        if shared := sorted(set(self.choose.numbers) & set(self.numbers)):
            raise ValueError(
                f"instance {shared[0]} is among both instances and choose.instances; what is chosen on an instance is "
                "not measured on it"
            )
        if self.n_action_steps is not None and self.choose.n_action_steps:
            raise ValueError("n_action_steps is given, and choose.n_action_steps tries others; leave one of them out")
        return self

    @property
    def environment(self) -> EnvSpec:
        """What is acted in."""
        return EnvSpec(self.env, self.picture_size, True, self.max_seconds, self.task)

"""How a policy is run on lerobot's inputs: the exact fast forward, or lerobot's own.

Both give the same numbers; see ``smolvla_core.fast``. Where the whole VLM is frozen, what it makes of a
frame is a constant and may be kept; where some of it is trained, gradients go through it too.

Legend: B frames, K noise draws of a frame, T action steps of which t are asked for, A action
dims, D padded to the policy's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from lerobot.utils.constants import OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS
from torch import Tensor

from smolvla_core.compiled import compiled, forget_compiled
from smolvla_core.config import RuntimeConfig
from smolvla_core.data.batch import EMBEDDINGS, PREFIX
from smolvla_core.fast import (
    Context,
    Observation,
    encode_prefix,
    expert_errors,
    flow_pair,
    image_embeddings,
    join_state,
    sample_actions,
    trained_embeddings,
    trains_vlm,
    velocity,
    what_is_trained,
)
from smolvla_core.policy import SmolVLAPolicy
from smolvla_core.prefix import Prefix

Inputs = Mapping[str, Any]
"""Of ``smolvla_core.data.batch.to_lerobot``, for B frames."""


Frames = tuple[int, ...]
"""Rows of the dataset that is scored."""


class Answer(NamedTuple):
    """What a policy says about frames, for each noise draw."""

    actions: Tensor
    """(B, K, t, A) normalised, integrated from the noise."""
    errors: Tensor
    """(B, K, t, A) squared errors of the velocity at the same noise and the given time."""


class Forward(Protocol):
    """One of the ways."""

    def flow_errors(self, inputs: Inputs, noise: Tensor, time: Tensor) -> Tensor:
        """Squared errors (B, T, A) of the velocity at noise (B, T, D) and time (B,), with gradients.

        Of K draws, (B, K, T, D) and (B, K), it is their mean.
        """

    def answer(
        self, inputs: Inputs, noise: Tensor, time: Tensor, frames: Frames | None = None, steps: int | None = None
    ) -> Answer:
        """Actions and errors at noise (B, K, T, D) and time (B, K), without gradients.

        ``frames`` names the frames and their instructions, where they are asked about again and again:
        what is constant of them may be kept. ``steps`` asks for the first t of the chunk alone; None: for all.
        """


class Passes(NamedTuple):
    """What a training step computes of a batch, as it is written or compiled."""

    encode: Callable[[SmolVLAPolicy, Observation], Prefix]
    """:func:`smolvla_core.fast.encode_prefix`."""
    errors: Callable[[SmolVLAPolicy, Prefix, Tensor, Tensor, Tensor, Tensor], Tensor]
    """:func:`smolvla_core.fast.expert_errors`."""


AS_WRITTEN = Passes(encode_prefix, expert_errors)


def choose_forward(policy: SmolVLAPolicy, runtime: RuntimeConfig) -> tuple[Forward, str]:
    """The forward for a policy, and one line that says which and why."""
    if not runtime.fast_forward:
        return UpstreamForward(policy), "forward: lerobot's (runtime.fast_forward is false)"
    passes = AS_WRITTEN
    if runtime.compile:
        forget_compiled()
        passes = Passes(compiled(encode_prefix), compiled(expert_errors))
    frozen = not trains_vlm(policy)
    kept = Prefixes(int(runtime.prefix_gb * 1e9))
    kind = FastForward(policy, kept, passes) if frozen else TrainedForward(policy, passes)
    how = "fast and exact, compiled" if runtime.compile else "fast and exact"
    return kind, f"forward: {how} ({what_is_trained(policy)})"


@dataclass
class Prefixes:
    """Encoded images and instructions of frames that are scored at every rung, as many as fit."""

    room: int
    """Bytes that are left."""
    kept: dict[Frames, Prefix] = field(default_factory=dict)

    def of(self, frames: Frames | None, encoded: Callable[[], Prefix]) -> Prefix:
        """The prefix of some frames: the one that is kept, else a new one, which is kept where it fits."""
        found = self.kept.get(frames) if frames is not None else None
        if found is not None:
            return found
        fresh = encoded()
        if frames is not None and fresh.bytes <= self.room:
            self.room -= fresh.bytes
            self.kept[frames] = fresh
        return fresh


@dataclass(frozen=True)
class FastForward:
    """``smolvla_core.fast`` on lerobot's inputs."""

    policy: SmolVLAPolicy
    prefixes: Prefixes = field(default_factory=lambda: Prefixes(0))
    passes: Passes = AS_WRITTEN

    def flow_errors(self, inputs: Inputs, noise: Tensor, time: Tensor) -> Tensor:
        """See :class:`Forward`."""
        prefix = inputs[PREFIX] if PREFIX in inputs else self.passes.encode(self.policy, self.observe(inputs))
        return _trained_errors(self.policy, self.passes, prefix, inputs, noise, time)

    @torch.no_grad()
    def answer(
        self, inputs: Inputs, noise: Tensor, time: Tensor, frames: Frames | None = None, steps: int | None = None
    ) -> Answer:
        """See :class:`Forward`. A frame is encoded once, for all draws, Euler steps and errors."""
        prefix = inputs.get(PREFIX) or self.prefixes.of(
            frames, lambda: encode_prefix(self.policy, self.observe(inputs), with_actions=False)
        )
        context = join_state(self.policy, prefix, self.policy.prepare_state(inputs), with_actions=False)
        return _answered(self.policy, context, inputs, noise, time, steps)

    def observe(self, inputs: Inputs) -> Observation:
        """The observation in inputs that hold pixels, or all cameras' embeddings in their place."""
        if EMBEDDINGS in inputs:
            embeddings = tuple(inputs[EMBEDDINGS][key] for key in self.policy.config.image_features)
            masks = [torch.ones(len(each), dtype=torch.bool, device=each.device) for each in embeddings]
        else:
            images, masks = self.policy.prepare_images(inputs)
            embeddings = image_embeddings(self.policy, images)
        return Observation(
            embeddings=embeddings,
            image_masks=tuple(masks),
            tokens=inputs[OBS_LANGUAGE_TOKENS],
            token_mask=inputs[OBS_LANGUAGE_ATTENTION_MASK],
        )


@dataclass(frozen=True)
class TrainedForward:
    """As :class:`FastForward` where some of the VLM is trained: with gradients through all of it, nothing kept."""

    policy: SmolVLAPolicy
    passes: Passes = AS_WRITTEN

    def flow_errors(self, inputs: Inputs, noise: Tensor, time: Tensor) -> Tensor:
        """See :class:`Forward`."""
        return self.errors_and_tokens(inputs, noise, time)[0]

    def errors_and_tokens(self, inputs: Inputs, noise: Tensor, time: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same errors, and the tokens (B, n, W) of each camera's pictures that the VLM got."""
        observation = self._observe(inputs)
        prefix = self.passes.encode(self.policy, observation)
        return _trained_errors(self.policy, self.passes, prefix, inputs, noise, time), observation.embeddings

    @torch.no_grad()
    def answer(
        self, inputs: Inputs, noise: Tensor, time: Tensor, frames: Frames | None = None, steps: int | None = None
    ) -> Answer:
        """See :class:`Forward`. A frame is encoded once, for all draws, Euler steps and errors."""
        prefix = encode_prefix(self.policy, self._observe(inputs), with_actions=False)
        context = join_state(self.policy, prefix, self.policy.prepare_state(inputs), with_actions=False)
        return _answered(self.policy, context, inputs, noise, time, steps)

    def _observe(self, inputs: Inputs) -> Observation:
        images, masks = self.policy.prepare_images(inputs)
        return Observation(
            embeddings=trained_embeddings(self.policy, images),
            image_masks=tuple(masks),
            tokens=inputs[OBS_LANGUAGE_TOKENS],
            token_mask=inputs[OBS_LANGUAGE_ATTENTION_MASK],
        )


@dataclass(frozen=True)
class UpstreamForward:
    """Lerobot's own methods."""

    policy: SmolVLAPolicy

    def flow_errors(self, inputs: Inputs, noise: Tensor, time: Tensor) -> Tensor:
        """See :class:`Forward`."""
        policy = self.policy
        if noise.ndim == 4:
            every = self.flow_errors(_repeated(inputs, noise.shape[1]), noise.flatten(0, 1), time.flatten())
            return every.unflatten(0, noise.shape[:2]).mean(dim=1)
        errors = policy.model.forward(
            *policy.prepare_images(inputs),
            inputs[OBS_LANGUAGE_TOKENS],
            inputs[OBS_LANGUAGE_ATTENTION_MASK],
            policy.prepare_state(inputs),
            policy.prepare_action(inputs),
            noise,
            time,
        )
        return errors[..., : action_width(policy)]

    @torch.no_grad()
    def answer(
        self, inputs: Inputs, noise: Tensor, time: Tensor, frames: Frames | None = None, steps: int | None = None
    ) -> Answer:
        """See :class:`Forward`. Every draw is a frame of its own."""
        draws = time.shape[1]
        repeated = _repeated(inputs, draws)
        actions = self.policy.predict_action_chunk(dict(repeated), noise=noise.flatten(0, 1))
        errors = self.flow_errors(repeated, noise.flatten(0, 1), time.flatten())
        shape = (-1, draws)
        return Answer(actions.unflatten(0, shape)[:, :, :steps], errors.unflatten(0, shape)[:, :, :steps])


def _repeated(inputs: Inputs, draws: int) -> dict[str, Tensor]:
    """Every frame as often as it has draws."""
    tensors = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
    return {key: value.repeat_interleave(draws, dim=0) for key, value in tensors.items()}


def _trained_errors(
    policy: SmolVLAPolicy, passes: Passes, prefix: Prefix, inputs: Inputs, noise: Tensor, time: Tensor
) -> Tensor:
    """Squared errors (B, T, A) of a step, without the padding of actions."""
    state, action = policy.prepare_state(inputs), policy.prepare_action(inputs)
    return passes.errors(policy, prefix, state, action, noise, time)[..., : action_width(policy)]


def _answered(
    policy: SmolVLAPolicy, context: Context, inputs: Inputs, noise: Tensor, time: Tensor, steps: int | None
) -> Answer:
    """Actions and errors of the first steps, in a context without actions; no action sees a later one."""
    action, noise = policy.prepare_action(inputs)[:, None, :steps], noise[:, :, :steps]
    noisy, target = flow_pair(action, noise, time)
    errors = F.mse_loss(target, velocity(policy, context, noisy, time), reduction="none")
    actions = sample_actions(policy, context, noise)
    width = action_width(policy)
    return Answer(actions[..., :width], errors[..., :width])


def action_width(policy: SmolVLAPolicy) -> int:
    """Number of action dims, A, without the policy's padding."""
    return int(policy.config.action_feature.shape[0])

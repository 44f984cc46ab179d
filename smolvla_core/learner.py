"""One optimizer step on one batch, and everything that changes while training."""

import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smolvla_core.config import RuntimeConfig, TrialConfig
from smolvla_core.data.batch import Batch, to_lerobot
from smolvla_core.errors import ConfigError, DivergedError, InfeasibleError, first_line
from smolvla_core.forward import TrainedForward, choose_forward
from smolvla_core.interface import Interface
from smolvla_core.localization import Locator, Places, kinds_of
from smolvla_core.optimizers import Optimizers
from smolvla_core.policy import Processors, build_policy, make_processors, training_stats
from smolvla_core.weights import FrameWeighter, FrameWeights, loss_denominator, per_sample_losses

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepStats:
    """What one step measured."""

    loss: float
    """The flow-matching loss."""
    grad_norm: float
    lr: float
    localization: float | None = None
    """The loss of locating objects, before its weight; None where nothing is located."""


@dataclass(frozen=True)
class Lesson:
    """What is learned of one dataset."""

    interface: Interface
    """What the policy sees and does there."""
    weights: FrameWeights
    """Of the loss at every frame, (N,)."""
    places: Places | None = None
    """Of objects in its pictures; None: nothing is located there."""


@dataclass(frozen=True)
class Reading:
    """How frames of one dataset become the policy's inputs and losses."""

    interface: Interface
    processors: Processors
    """With the dataset's own statistics."""
    weighter: FrameWeighter
    places: Places | None
    """Where objects are to be located."""


class Learner:
    """A policy, its optimizer and its moving average.

    Args:
        config: the trial.
        main: what is learned of the main dataset.
        others: of those that are trained beside it, in their order.

    Raises:
        ConfigError: the policy cannot be built, or the device does not exist.
    """

    def __init__(self, config: TrialConfig, main: Lesson, others: Sequence[Lesson] = ()):
        self.config, self.interface = config, main.interface
        self.device = pick_device(config.runtime)
        self.precision = pick_precision(config.runtime, self.device)
        self.policy = build_policy(config, main.interface, self.device)
        self.forward, self.forward_line = choose_forward(self.policy, config.runtime)
        self.readings = tuple(self._reading(lesson) for lesson in (main, *others))
        self.processors = self.readings[0].processors
        self.trained: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in self.policy.named_parameters() if parameter.requires_grad
        }
        self.locator = self._locator()
        if self.locator is not None:
            named = self.locator.named_parameters()
            self.trained |= {f"localization.{name}": parameter for name, parameter in named}
        self.optimizers = Optimizers(self.trained, config.optim)
        decaying = config.optim.ema_decay is not None
        self.ema: dict[str, Tensor] | None = (
            {name: parameter.detach().clone() for name, parameter in self.trained.items()} if decaying else None
        )
        self.micro_batch: int | None = config.optim.micro_batch
        """Samples of a forward; less than the configuration says once that did not fit into the memory."""
        self.step_count = 0
        self.samples_seen = 0

    def step(self, batch: Batch | Sequence[Batch], lr: float) -> StepStats:
        """Forward, backward and update; in micro-batches where the configuration says so.

        A forward that does not fit into the memory is made again with half as many samples, here and
        from here on, which changes nothing but rounding.

        Args:
            batch: or its parts, each of one dataset: pictures of different sizes cannot be stacked,
                so every part has its own forward. The loss is the mean over all samples, whichever
                part they are in.
            lr: of this step.

        Raises:
            DivergedError: the loss or a gradient is not finite; nothing was updated.
            InfeasibleError: not even one sample fits into the memory.
        """
        parts = (batch,) if isinstance(batch, Batch) else tuple(batch)
        weights = [self.step_weights(part) for part in parts]
        normalize = self.config.weighting.normalize
        denominator = sum(
            loss_denominator(each, part.is_pad, normalize) for each, part in zip(weights, parts, strict=True)
        )
        while (found := self._accumulate(parts, weights, denominator)) is None:
            # here, where nothing holds the tensors of what failed any more
            self.optimizers.zero_grad()
            free_memory(self.device)
        norm = nn.utils.clip_grad_norm_(self.trained.values(), self.config.optim.grad_clip)
        self._refuse_non_finite(norm, "gradient norm")
        self.optimizers.step(lr)
        self._update_ema()
        self.step_count += 1
        self.samples_seen += sum(map(len, parts))
        loss, localization = found
        return StepStats(loss, norm.item(), lr, localization)

    def step_weights(self, batch: Batch) -> Tensor:
        """Weights of the loss: (B, T) of every step, or (B, 1) of every sample."""
        rows = batch.step_rows if self.config.weighting.per_step else batch.rows[:, None]
        return self.readings[batch.dataset].weighter.compute_batch_weights({"index": rows})[0]

    def losses(self, batch: Batch, step_weights: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weighted flow-matching losses (B,), see :func:`smolvla_core.weights.per_sample_losses`; and those of
        locating objects (B,), where they are located in the batch's dataset.
        """
        reading = self.readings[batch.dataset]
        inputs = to_lerobot(batch, reading.interface, reading.processors, self.device)
        located = None
        assert self.locator is None or self.readings[0].places is not None, "nothing says where objects are"
        with self.autocast():
            if self.locator is None or reading.places is None:
                errors = self.flow_errors(inputs, batch)
            else:
                assert isinstance(self.forward, TrainedForward)
                noise, time = batch.noise.to(self.device), batch.time.to(self.device)
                errors, tokens = self.forward.errors_and_tokens(inputs, noise, time)
                uv = reading.places.uv(batch.rows.numpy()).to(self.device)
                located = self.locator.losses(tokens, uv, reading.places.kinds)
        return per_sample_losses(errors, batch.is_pad.to(self.device), step_weights.to(self.device)), located

    def flow_errors(self, inputs: dict[str, Any], batch: Batch) -> Tensor:
        """Squared errors of the predicted velocity (B, T, A), as ``SmolVLAPolicy.forward`` has them."""
        return self.forward.flow_errors(inputs, batch.noise.to(self.device), batch.time.to(self.device))

    def autocast(self) -> Any:
        """Mixed precision where it is on."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def swap_ema(self) -> None:
        """Exchange the trained weights and their moving average; a second call undoes the first."""
        if self.ema is None:
            return
        with torch.no_grad():
            for name, parameter in self.trained.items():
                live = parameter.detach().clone()
                parameter.copy_(self.ema[name])
                self.ema[name].copy_(live)

    def _reading(self, lesson: Lesson) -> Reading:
        processors = make_processors(self.policy.config, lesson.interface, training_stats(lesson.interface))
        return Reading(lesson.interface, processors, FrameWeighter(lesson.weights), lesson.places)

    def _locator(self) -> Locator | None:
        kinds = kinds_of(self.config)
        if not kinds:
            return None
        width = self.policy.model.vlm_with_expert.config.text_config.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.runtime.seed)
            return Locator(width, len(kinds)).to(self.device)

    def _accumulate(
        self, parts: Sequence[Batch], weights: Sequence[Tensor], denominator: float | Tensor
    ) -> tuple[float, float | None] | None:
        """The gradients of a step, its flow-matching loss and that of locating objects, where there is one; None where
        memory ran out, and it is to be tried again.
        """
        self.optimizers.zero_grad()
        total, located, tried = 0.0, None, 0
        samples = sum(map(len, parts))
        try:
            for part, each in zip(parts, weights, strict=True):
                tried = min(self.micro_batch or len(part), len(part))
                for start in range(0, len(part), tried):
                    stop = start + tried
                    flow, places = self.losses(part.slice(start, stop), each[start:stop])
                    loss = flow.sum() / denominator
                    total += loss.item()
                    if places is not None:
                        mean = places.sum() / samples
                        located = (located or 0.0) + mean.item()
                        loss = loss + self.config.auxiliary.localization * mean
                    self._refuse_non_finite(loss, "loss")
                    loss.backward()
        except torch.OutOfMemoryError as error:
            if tried <= 1:
                raise InfeasibleError(f"not even one sample at a time fits ({first_line(error)})") from error
            self.micro_batch = (tried + 1) // 2
            _LOG.warning("%d samples at once do not fit into the memory; on with %d", tried, self.micro_batch)
            return None
        return total, located

    def _update_ema(self) -> None:
        most = self.config.optim.ema_decay
        if self.ema is None or most is None:
            return
        decay = average_decay(most, self.step_count)
        with torch.no_grad():
            for name, parameter in self.trained.items():
                self.ema[name].lerp_(parameter, 1.0 - decay)

    def _refuse_non_finite(self, value: Tensor, what: str) -> None:
        if not torch.isfinite(value).all():
            raise DivergedError(
                f"{what} is {value.item()} after {self.samples_seen} samples (step {self.step_count}); "
                "the weights before this step are unharmed"
            )


def free_memory(device: torch.device) -> None:
    """Give back what a computation that failed has taken."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def average_decay(most: float, steps: int) -> float:
    """The moving average's decay after so many steps: lower at first, since it begins with what was not trained.

    ``min(most, (1 + n) / (10 + n))``, as TensorFlow's ``ExponentialMovingAverage`` and Diffusion Policy's. At a
    constant 0.998 three tenths of an average after 600 steps would be the weights of the start.
    """
    return min(most, (1 + steps) / (10 + steps))


def pick_device(config: RuntimeConfig) -> torch.device:
    """The device named by the configuration; ``auto`` is cuda where there is one.

    Raises:
        ConfigError: a device that does not exist here.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"runtime.device: '{config.device}' cannot be used here ({first_line(error)}); set auto"
        ) from None
    return device


def pick_precision(config: RuntimeConfig, device: torch.device) -> str:
    """``auto`` is bf16 on a GPU that has it and fp32 elsewhere."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"

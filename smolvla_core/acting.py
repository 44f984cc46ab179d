"""An exported policy that acts: live observations in, actions of R1Pro out.

Everything between the two is the policy's own: lerobot's saved pre- and post-processor (state filter,
engineered features, normalisers, camera names) and its preparation of pictures.

Legend: B robots, R raw state dims, T actions of a chunk, A action dims, D the policy's padded ones.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import TokenizerProcessorStep
from lerobot.processor.pipeline import ProcessorMigrationError
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from smolvla_core.card import CARD_FILE
from smolvla_core.checkpoint import STATE_FILE, VLM_FOLDER
from smolvla_core.config import RuntimeConfig
from smolvla_core.data.batch import to_floats
from smolvla_core.data.keyed import keyed_generator
from smolvla_core.data.keys import STATE, TASK_INFO
from smolvla_core.errors import ConfigError, DataError, first_line
from smolvla_core.instructions import RememberingTokenizer
from smolvla_core.learner import pick_device
from smolvla_core.live import CAMERAS, CONTROL_HZ, Observation, ObservationError, camera_of, state_of
from smolvla_core.policy import Processors, SmolVLAPolicy, refuse_cut_instruction, with_weights
from smolvla_core.pretrained import pretrained_config, weights_file
from smolvla_core.r1pro import ACTION_WIDTH

NoiseKey = tuple[int, ...]
"""What a chunk's noise depends on; of whole numbers from 0 on."""

_OWN_NOISE, _ASKED_NOISE = 0, 1  # streams of random numbers, independent by their key


@dataclass(frozen=True)
class Actor:
    """A policy that acts.

    Attributes:
        name: the folder that it was loaded from.
        policy: of lerobot.
        processors: its own.
        cameras: live camera -> the key that its pre-processor takes.
        state_width: raw state dims, R.
        instruction: what it is told to do.
        n_action_steps: actions of a chunk that are carried out before it is asked again.
        hold: for how many of the environment's steps each is.
        device: where it is computed.
        reads_object_poses: it needs those in the observation.
    """

    name: str
    policy: SmolVLAPolicy
    processors: Processors
    cameras: Mapping[str, str]
    state_width: int
    instruction: str
    n_action_steps: int
    hold: int
    device: torch.device
    reads_object_poses: bool = False

    @property
    def chunk_size(self) -> int:
        """Actions that it predicts at a time, T."""
        return int(self.policy.config.chunk_size)

    @property
    def steps(self) -> int:
        """The environment's steps from one prediction to the next."""
        return self.n_action_steps * self.hold

    def noise(self, keys: Sequence[NoiseKey]) -> NDArray[np.float32]:
        """Noise (B, T, D), each a pure function of its key; a shorter chunk's is a longer one's beginning."""
        shape = self.chunk_size, int(self.policy.config.max_action_dim)
        return np.stack([keyed_generator(*key).standard_normal(shape, dtype=np.float32) for key in keys])

    def chunks(self, observations: Sequence[Observation], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """What to do in the next steps, (B, steps, A), for robots whose pictures are of one size.

        A policy of a lower rate than the environment's holds each action: positions stay, and the base
        goes on with its velocity, as it was trained to (``Dataset.chunk_actions``).

        Args:
            observations: B of them.
            noise: (B, T, D), that the flow is integrated from.

        Raises:
            ObservationError: one does not fit the policy.
        """
        inputs = self.processors.pre(self._lerobot(observations))
        predicted = self.policy.predict_action_chunk(inputs, noise=torch.from_numpy(noise).to(self.device))
        actions: Tensor = self.processors.post(predicted[:, : self.n_action_steps].float())
        return actions.cpu().numpy().astype(np.float32).repeat(self.hold, axis=1)

    def _lerobot(self, observations: Sequence[Observation]) -> dict[str, Any]:
        """The raw observation by the keys of the dataset that it was trained on."""
        raw: dict[str, Any] = {"task": [self.instruction] * len(observations)}
        raw[STATE] = torch.from_numpy(np.stack([state_of(each, self.state_width) for each in observations]))
        for camera, key in self.cameras.items():
            sizes = {each.pictures[camera].shape for each in observations}
            if len(sizes) > 1:
                raise ObservationError(f"pictures of '{camera}' have several sizes: {sorted(sizes)}")
            pictures = np.stack([each.pictures[camera] for each in observations])
            raw[key] = to_floats(torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2))
        if self.reads_object_poses:
            poses = [each.object_poses for each in observations]
            if any(pose is None for pose in poses):
                raise ObservationError(f"the observation has no '{TASK_INFO}', which this policy needs")
            raw[TASK_INFO] = torch.from_numpy(np.stack(poses))  # type: ignore[arg-type]
        return raw


def own_noise(seed: int, *key: int) -> NoiseKey:
    """The key of noise that a server of this seed chooses."""
    return (seed, _OWN_NOISE, *key)


def asked_noise(seed: int, *key: int) -> NoiseKey:
    """The key of noise that a client of such a server asks for; an evaluation's is that of seed 0."""
    return (seed, _ASKED_NOISE, *key)


def device_of(name: str) -> torch.device:
    """The device of this name; ``auto`` is cuda where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    try:
        return pick_device(RuntimeConfig(device=name))
    except ValidationError:
        raise ConfigError(f"device: no '{name}'; give auto, cpu, mps, cuda or cuda:N") from None


def load_actor(
    folder: str | Path,
    device: torch.device,
    n_action_steps: int | None = None,
    instruction: str | None = None,
    control_hz: float = CONTROL_HZ,
) -> Actor:
    """Load a policy that :func:`smolvla_core.checkpoint.export_policy` wrote, or another SmolVLA of lerobot's.

    Args:
        folder: the policy's.
        device: where it goes.
        n_action_steps: in place of its own.
        instruction: in place of the one that it was trained with; needed where several are known or none.
        control_hz: actions a second of what it acts in.

    Raises:
        ConfigError, DataError: it cannot be loaded, or does not act on an R1Pro of this rate.
    """
    try:
        return _load(Path(folder), device, n_action_steps, instruction, control_hz)
    except ConfigError as error:  # of a policy that is to be trained on, this key of its configuration is to blame
        raise ConfigError(str(error).removeprefix("policy.pretrained: ")) from None


def _load(
    folder: Path, device: torch.device, n_action_steps: int | None, instruction: str | None, control_hz: float
) -> Actor:
    config = _config(folder)
    chunk = int(config.chunk_size)
    steps = n_action_steps if n_action_steps is not None else int(config.n_action_steps)
    if not 1 <= steps <= chunk:
        raise ConfigError(f"n_action_steps is {steps}; the policy predicts {chunk} actions, so give 1 to {chunk}")
    card = _card(folder)
    hold = _hold(folder, card, control_hz)
    instruction = _instruction(folder, card, instruction)
    refuse_cut_instruction(config, instruction)
    action = config.output_features["action"].shape[0]
    if action != ACTION_WIDTH:
        raise ConfigError(f"{folder}: its actions have {action} dims; an R1Pro's have {ACTION_WIDTH}")
    policy = with_weights(config, lambda: load_file(weights_file(str(folder))), str(folder)).to(device).eval()
    policy.config.device = str(device)
    return Actor(
        name=str(folder),
        policy=policy,
        processors=_processors(folder, config, device),
        cameras=_cameras(folder, card, tuple(config.image_features)),
        state_width=int(card.get("raw_state_width", config.input_features[STATE].shape[0])),
        instruction=instruction,
        n_action_steps=steps,
        hold=hold,
        device=device,
        reads_object_poses=TASK_INFO in card.get("privileged_inputs", ()),
    )


def _config(folder: Path) -> Any:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give the folder of an exported policy, such as RUN/best")
    if (folder / STATE_FILE).is_file():
        raise ConfigError(
            f"{folder}: is a trial's state; make a policy of it with "
            f"python -m smolvla_core.checkpoint export {folder} OUT, and give OUT"
        )
    config: Any = pretrained_config(str(folder))
    if (folder / VLM_FOLDER).is_dir():  # wherever the policy was moved to, its VLM has moved along
        config.vlm_model_name = str(folder.absolute() / VLM_FOLDER)
    config.device = "cpu"
    return config


def _card(folder: Path) -> Mapping[str, Any]:
    file = folder / CARD_FILE
    if not file.is_file():
        return {}
    try:
        card: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(f"{file}: damaged; export the policy again") from None
    return card


def _hold(folder: Path, card: Mapping[str, Any], control_hz: float) -> int:
    own = float(card.get("control_hz", control_hz))
    hold = round(control_hz / own)
    if hold < 1 or abs(hold * own - control_hz) > 1e-6 * control_hz:
        raise ConfigError(
            f"{folder}: the policy acts at {own:g} Hz, of which {control_hz:g} Hz is no multiple; train one with a "
            "data.frame_stride that divides the recording's rate"
        )
    return hold


def _instruction(folder: Path, card: Mapping[str, Any], given: str | None) -> str:
    known = list(card.get("instructions", ()))
    if given is not None:
        return given
    if len(known) == 1:
        return str(known[0])
    what = f"was trained with {len(known)} instructions" if known else "does not say what it was told in training"
    example = f"; e.g. {known[0]!r}" if known else ""
    raise ConfigError(f"{folder}: the policy {what}; choose one with --instruction{example}")


def _cameras(folder: Path, card: Mapping[str, Any], image_keys: Sequence[str]) -> dict[str, str]:
    """Live camera -> the key that the pre-processor takes, in the policy's order."""
    keys: Sequence[str] = list(card.get("cameras", {})) or image_keys
    found = {camera_of(key): key for key in keys}
    if None in found or len(found) < len(keys):
        odd = found.get(None, keys[-1])
        raise ConfigError(
            f"{folder}: the policy looks through '{odd}', which is none of an R1Pro's cameras "
            f"({', '.join(CAMERAS)}); train it on a dataset with those, such as observation.images.rgb.head"
        )
    return {str(camera): key for camera, key in found.items()}


def _processors(folder: Path, config: Any, device: torch.device) -> Processors:
    """The saved ones, on this device; the tokenizer looks at an instruction once."""
    overrides = {
        "device_processor": {"device": str(device)},
        "tokenizer_processor": {"tokenizer_name": config.vlm_model_name},
    }
    try:
        pre, post = make_pre_post_processors(config, str(folder), preprocessor_overrides=overrides)
    except (OSError, ValueError, ProcessorMigrationError) as error:
        raise ConfigError(
            f"{folder}: its processors cannot be loaded ({first_line(error)}); give a folder with "
            "policy_preprocessor.json and policy_postprocessor.json, such as RUN/best"
        ) from None
    for step in pre.steps:
        if isinstance(step, TokenizerProcessorStep):
            step.input_tokenizer = RememberingTokenizer(step.input_tokenizer)
    return Processors(pre, post)

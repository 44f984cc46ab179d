"""Build, load and widen SmolVLA policies. The only module that imports lerobot's SmolVLA."""

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub.errors import HfHubHTTPError
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig as SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy as SmolVLAPolicy
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from lerobot.processor import RenameObservationsProcessorStep, TokenizerProcessorStep
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer
from transformers.initialization import no_init_weights

from smolvla_core.config import TINY, PolicyConfig, TrialConfig
from smolvla_core.data.dataset import Moments
from smolvla_core.data.keys import ACTION, STATE
from smolvla_core.errors import ConfigError, first_line
from smolvla_core.instructions import RememberingTokenizer
from smolvla_core.interface import Interface
from smolvla_core.pretrained import pretrained_config, stored_weights, trained_on
from smolvla_core.state_proj import STATE_DIMS, state_dims, widened
from smolvla_core.tiny_vlm import tiny_vlm_folder


class Processors(NamedTuple):
    """lerobot's pipelines around a policy: raw observation -> inputs, outputs -> raw action."""

    pre: Any
    post: Any


def build_policy(config: TrialConfig, interface: Interface, device: torch.device) -> SmolVLAPolicy:
    """The policy at the start of training.

    Args:
        config: the trial.
        interface: what the policy sees and does.
        device: where its parameters go.

    Raises:
        ConfigError: as :func:`check_policy`, or the pretrained policy lacks weights.
    """
    smolvla = check_policy(config, interface)
    if config.policy.pretrained == TINY:
        policy = _with_random_weights(smolvla, config.policy.tiny.init_seed)
    else:
        name = config.policy.pretrained
        policy = with_weights(smolvla, lambda: stored_weights(name, interface), name)
    width = state_dims(config.policy.max_state_dim, interface.state_width, smolvla.max_state_dim)
    if width > policy.config.max_state_dim:
        widen_state(policy, width)
    policy.config.device = str(device)
    return policy.to(device).train()


def check_policy(config: TrialConfig, interface: Interface) -> SmolVLAConfig:
    """Lerobot's configuration of the policy, checked against the data; no weights are read.

    Its ``max_state_dim`` is the checkpoint's own, before :func:`build_policy` widens it.

    Raises:
        ConfigError: the pretrained policy cannot be found, is no SmolVLA, or is too narrow for the
            actions; or ``policy.max_state_dim`` does not fit.
    """
    smolvla = _tiny_config(config, interface) if config.policy.pretrained == TINY else _tuned_config(config, interface)
    if interface.action_width > smolvla.max_action_dim:
        raise ConfigError(
            f"policy: the dataset has {interface.action_width} action dims, "
            f"{config.policy.pretrained} takes at most {smolvla.max_action_dim}"
        )
    state_dims(config.policy.max_state_dim, interface.state_width, smolvla.max_state_dim)
    return smolvla


def make_processors(config: SmolVLAConfig, interface: Interface, stats: dict[str, dict[str, Tensor]]) -> Processors:
    """Lerobot's own pipelines, with our statistics and the cameras' names mapped."""
    pre, post = make_smolvla_pre_post_processors(config, stats)
    renames = {view.dataset_key: view.policy_key for view in interface.cameras if view.dataset_key != view.policy_key}
    pre.steps = [
        RenameObservationsProcessorStep(rename_map=renames)
        if isinstance(step, RenameObservationsProcessorStep)
        else step
        for step in pre.steps
    ]
    for step in pre.steps:
        if isinstance(step, TokenizerProcessorStep):
            step.input_tokenizer = RememberingTokenizer(step.input_tokenizer)
    return Processors(pre, post)


def training_stats(interface: Interface) -> dict[str, dict[str, Tensor]]:
    """Statistics of what the policy sees of the state, and of what it predicts, for lerobot's normaliser."""
    return {
        STATE: _to_stats(interface.seen),
        ACTION: _to_stats(interface.learned),
    }


def raw_stats(interface: Interface) -> dict[str, dict[str, Tensor]]:
    """Statistics over the raw state, then the features: a dim the policy does not see has mean 0 and std 1."""
    used = np.zeros(interface.selection.raw_width, dtype=bool)
    used[list(interface.selection.indices)] = True
    raw, seen = interface.state, interface.seen

    def values(name: str, unused: float) -> NDArray[np.float64]:
        features = getattr(seen, name)[interface.selection.width :]
        return np.concatenate([np.where(used, getattr(raw, name), unused), features])

    state = Moments(values("mean", 0), values("std", 1), values("min", -1), values("max", 1))
    return {STATE: _to_stats(state), ACTION: _to_stats(interface.learned)}


def widen_state(policy: SmolVLAPolicy, width: int) -> None:
    """Give ``state_proj`` more input columns in place; the new ones are zero, the present ones stay."""
    policy.model.state_proj = widened(policy.model.state_proj, width)
    policy.config.max_state_dim = width


def local_vlm(config: SmolVLAConfig) -> Path | None:
    """The folder of a policy's VLM where it is a local one, else None."""
    folder = Path(config.vlm_model_name)
    return folder if folder.is_dir() else None


def refuse_cut_instruction(config: SmolVLAConfig, instruction: str) -> None:
    """Refuse an instruction that the tokenizer would cut.

    Raises:
        ConfigError: with the length it needs.
    """
    tokens = len(_tokenizer(config.vlm_model_name)(instruction.rstrip("\n") + "\n")["input_ids"])
    if tokens > config.tokenizer_max_length:
        raise ConfigError(
            f"policy.tokenizer_max_length is {config.tokenizer_max_length}, the instruction has {tokens} tokens and "
            f"would be cut; set it to at least {tokens}"
        )


def input_features(interface: Interface, state_width: int) -> dict[str, PolicyFeature]:
    """Lerobot's description of the policy's inputs."""
    features = {STATE: PolicyFeature(FeatureType.STATE, (state_width,))}
    for view in interface.cameras:
        features[view.policy_key] = PolicyFeature(FeatureType.VISUAL, (3, view.height, view.width))
    return features


def point_at_vlm(config: SmolVLAConfig, processors: Processors, folder: str) -> None:
    """Name another folder as the home of the VLM's configuration and tokenizer, in place."""
    config.vlm_model_name = folder
    for step in processors.pre.steps:
        if isinstance(step, TokenizerProcessorStep):
            step.tokenizer_name = folder


def _tiny_config(config: TrialConfig, interface: Interface) -> SmolVLAConfig:
    size = config.policy.tiny
    return SmolVLAConfig(
        vlm_model_name=str(tiny_vlm_folder(size, config.data.cache_dir)),
        load_vlm_weights=False,
        num_vlm_layers=size.layers,
        expert_width_multiplier=size.expert_width,
        resize_imgs_with_padding=(size.image_size, size.image_size),
        max_state_dim=STATE_DIMS,
        max_action_dim=max(32, interface.action_width),
        device="cpu",
        **_shared_settings(config.policy, interface),
    )


def _tuned_config(config: TrialConfig, interface: Interface) -> SmolVLAConfig:
    smolvla = pretrained_config(config.policy.pretrained)
    assert isinstance(smolvla, SmolVLAConfig)
    if smolvla.adapt_to_pi_aloha:
        raise ConfigError(
            f"policy.pretrained: {config.policy.pretrained} converts Aloha's joints as it acts (adapt_to_pi_aloha), "
            "which is not trained here; give another policy"
        )
    _refuse_normalisation(config.policy.pretrained, smolvla, interface)
    smolvla.rtc_config = None  # chunking in real time is of acting alone
    smolvla.compile_model = False  # which compiles lerobot's forward, and sets the precision of the whole process
    for name, value in _shared_settings(config.policy, interface).items():
        setattr(smolvla, name, value)
    smolvla.device = "cpu"
    local = Path(config.policy.pretrained) / "vlm"
    if local.is_dir():  # a checkpoint of ours that was moved still carries its VLM
        smolvla.vlm_model_name = str(local)
    smolvla.max_state_dim = trained_on(config.policy.pretrained, interface) or smolvla.max_state_dim
    return smolvla


def _refuse_normalisation(name: str, smolvla: SmolVLAConfig, interface: Interface) -> None:
    """Refuse a normaliser that our statistics do not serve, or that the state projection cannot be folded over."""
    modes = {
        kind: NormalizationMode(smolvla.normalization_mapping.get(kind, "IDENTITY")) for kind in ("STATE", "ACTION")
    }
    for kind, mode in modes.items():
        if mode.value.startswith("QUANTILE"):
            raise ConfigError(
                f"policy.pretrained: {name} normalises {kind} by {mode.value}, of which no statistics are made here; "
                "set MEAN_STD or MIN_MAX in normalization_mapping of its config.json, or give another policy"
            )
    if modes["STATE"] != NormalizationMode.MEAN_STD and not all(c.is_raw for c in interface.selection.columns):
        raise ConfigError(
            f"policy.pretrained: {name} normalises STATE by {modes['STATE'].value}, over which a state of sums such as "
            "gripper_left_opening cannot be exported; choose a state.preset or state.keys of raw dims, or give "
            "another policy"
        )


def _with_random_weights(smolvla: SmolVLAConfig, seed: int) -> SmolVLAPolicy:
    with torch.random.fork_rng(devices=[]), redirect_stdout(io.StringIO()):
        torch.manual_seed(seed)
        return SmolVLAPolicy(smolvla)


def with_weights(smolvla: SmolVLAConfig, read: Callable[[], Mapping[str, Tensor]], name: str) -> SmolVLAPolicy:
    """A policy with stored weights, in the precisions that it is trained in.

    Args:
        smolvla: its configuration.
        read: gives the weights by parameter name.
        name: of the policy, for messages.

    Raises:
        ConfigError: the weights cannot be read, or are not the policy's.
    """
    try:
        weights = read()
        policy = _mapped(smolvla, weights)
        if policy is None:
            policy = _read_over_the_vlms(smolvla, weights)
    except (OSError, RuntimeError, SafetensorError, HfHubHTTPError) as error:
        raise ConfigError(f"policy.pretrained: {name} cannot be loaded: {first_line(error)}") from error
    _refuse_missing_weights(policy, weights, name)
    return policy


def _mapped(smolvla: SmolVLAConfig, weights: Mapping[str, Tensor]) -> SmolVLAPolicy | None:
    """A policy whose frozen weights are the stored tensors themselves; None where some are not stored.

    Nothing is initialised or copied but what is trained, so that a second policy on a machine costs
    its expert's memory, and no time to speak of. Precisions are those of
    :func:`_read_over_the_vlms`.
    """
    random = replace(smolvla, load_vlm_weights=False)
    with no_init_weights(), redirect_stdout(io.StringIO()):
        policy = SmolVLAPolicy(random)
    policy.config.load_vlm_weights = smolvla.load_vlm_weights
    if not set(policy.state_dict()) <= set(weights):
        return None
    frozen_dtype = torch.bfloat16 if smolvla.load_vlm_weights else torch.float32
    frozen = _frozen_vlm(policy)
    for key, parameter in policy.named_parameters(remove_duplicate=False):
        stored = weights[key]
        if stored.shape != parameter.shape:
            raise RuntimeError(f"'{key}' is {tuple(stored.shape)}, the policy's is {tuple(parameter.shape)}")
        parameter.data = stored.to(frozen_dtype) if parameter in frozen else stored.to(torch.float32, copy=True)
    for key, buffer in policy.named_buffers():
        if key in weights:
            buffer.copy_(weights[key])
    return policy


def _read_over_the_vlms(smolvla: SmolVLAConfig, weights: Mapping[str, Tensor]) -> SmolVLAPolicy:
    """As lerobot does it: the VLM's own weights, and over them what is stored."""
    with redirect_stdout(io.StringIO()):
        policy = SmolVLAPolicy(smolvla)
    train_in_fp32(policy)
    policy.load_state_dict(weights, strict=False)
    return policy


def _frozen_vlm(policy: SmolVLAPolicy) -> set[nn.Parameter]:
    """The VLM's parameters where none of them is trained; else nothing."""
    return set(policy.model.vlm_with_expert.vlm.parameters()) if policy.config.train_expert_only else set()


def train_in_fp32(policy: SmolVLAPolicy) -> None:
    """Hold what is trained in fp32, in place; a frozen VLM keeps the precision it was loaded in.

    lerobot builds the expert in the VLM's precision. In bf16 a weight of 0.02 moves in steps of
    8e-5, so the small updates of a late learning rate would be lost without a word.
    """
    frozen = _frozen_vlm(policy)
    for parameter in policy.parameters():
        if parameter not in frozen:
            parameter.data = parameter.data.float()


def _shared_settings(config: PolicyConfig, interface: Interface) -> dict[str, Any]:
    return {
        "input_features": input_features(interface, interface.state_width),
        "output_features": {ACTION: PolicyFeature(FeatureType.ACTION, (interface.action_width,))},
        "chunk_size": config.chunk_size,
        "n_action_steps": config.action_steps,
        "num_steps": config.num_steps,
        "tokenizer_max_length": config.tokenizer_max_length,
        "train_expert_only": config.train_expert_only,
        "freeze_vision_encoder": config.freeze_vision_encoder,
        "empty_cameras": 0,
    }


def _refuse_missing_weights(policy: SmolVLAPolicy, stored: Iterable[str], name: str) -> None:
    trained = {key for key, value in policy.named_parameters() if value.requires_grad}
    lacking = sorted(trained - set(stored))
    if lacking:
        raise ConfigError(
            f"policy.pretrained: {name} lacks '{lacking[0]}' and {len(lacking) - 1} more weights that would be trained"
        )


@lru_cache(maxsize=4)
def _tokenizer(name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(name)  # nosec B615 # no code comes with it
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.pretrained: the tokenizer of its VLM, {name}, cannot be fetched ({first_line(error)}); "
            "check the network, or put the VLM's folder where the policy's config.json names it"
        ) from None


def _to_stats(moments: Moments) -> dict[str, Tensor]:
    return {name: torch.tensor(getattr(moments, name), dtype=torch.float32) for name in ("mean", "std", "min", "max")}

"""How large values of the cache are, known before any weight is read, and which prefixes have room in it."""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig

from smolvla_core.cache.encoder import embedding_shape
from smolvla_core.cache.home import GB
from smolvla_core.cache.store import item_bytes
from smolvla_core.config import TrialConfig
from smolvla_core.errors import ConfigError, first_line
from smolvla_core.interface import Interface
from smolvla_core.learner import pick_device
from smolvla_core.policy import SmolVLAConfig, check_policy

HELD_OUT_SHARE = 0.25
"""Of the cache's budget, which prefixes of held-out frames may take where those of all frames do not fit."""


class KeptPrefixes(NamedTuple):
    """Bytes of the prefixes that are kept, at most; 0 where none are."""

    held_out: int
    training: int


def kept_prefixes(config: TrialConfig, interface: Interface, held_out: int, training: int) -> KeptPrefixes:
    """Which prefixes a trial keeps in the cache.

    Decided by the configuration and the data alone, so that it never depends on what happens to be stored.

    Args:
        config: the trial.
        interface: of its main dataset.
        held_out: frames that every evaluation scores.
        training: the most training frames, in each of their views, that it can draw.
    """
    runtime = config.runtime
    # a GPU computes them faster than they can be read
    if (
        runtime.prefixes == "off"
        or runtime.cache == "off"
        or not config.frozen_vlm
        or pick_device(runtime).type != "cpu"
    ):
        return KeptPrefixes(0, 0)
    budget = runtime.cache_gb * GB
    smolvla = check_policy(config, interface)
    size, beside = prefix_bytes(smolvla, interface), embedding_bytes(config, interface)
    if not config.augment.fresh_colors and (held_out + training) * (size + beside) <= budget:
        return KeptPrefixes(held_out * size, training * size)
    return KeptPrefixes(held_out * size if held_out * (size + beside) <= HELD_OUT_SHARE * budget else 0, 0)


def prefix_bytes(smolvla: SmolVLAConfig, interface: Interface) -> int:
    """The most bytes of what the VLM makes of a frame's pictures and instruction."""
    vlm = _vlm_config(smolvla.vlm_model_name)
    text = vlm.text_config
    pictures = (embedding_shape(vlm, *size)[0] for size in _picture_sizes(smolvla, interface))
    special = 4 * len(interface.cameras) if smolvla.add_image_special_tokens else 0
    tokens = sum(pictures) + special + smolvla.tokenizer_max_length
    layers = smolvla.num_vlm_layers if smolvla.num_vlm_layers > 0 else text.num_hidden_layers
    return 2 * layers * item_bytes((tokens, text.num_key_value_heads, text.head_dim), torch.float32)


def embedding_bytes(config: TrialConfig, interface: Interface) -> int:
    """Bytes of the embeddings of a frame's pictures, by the configurations of policy and VLM."""
    smolvla = check_policy(config, interface)
    vlm = _vlm_config(smolvla.vlm_model_name)
    dtype = torch.bfloat16 if smolvla.load_vlm_weights or config.runtime.precision == "bf16" else torch.float32
    return sum(item_bytes(embedding_shape(vlm, *size), dtype) for size in _picture_sizes(smolvla, interface))


def _picture_sizes(smolvla: SmolVLAConfig, interface: Interface) -> list[tuple[int, int]]:
    return [smolvla.resize_imgs_with_padding or (view.width, view.height) for view in interface.cameras]


@lru_cache(maxsize=4)
def _vlm_config(name: str) -> Any:
    try:
        return AutoConfig.from_pretrained(name)  # nosec B615 # no code comes with it
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.pretrained: the configuration of its VLM, {name}, cannot be fetched "
            f"({first_line(error)}); check the network"
        ) from None


def picture_bytes(interface: Interface) -> int:
    """Bytes of a frame's decoded pictures."""
    return sum(3 * view.height * view.width for view in interface.cameras)

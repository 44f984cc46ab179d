"""How large a cache becomes, known before any weight is read, and how many frames have room in it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoConfig

from smolvla_core.cache.encoder import embedding_shape
from smolvla_core.cache.home import Home, home_of, size_text
from smolvla_core.cache.store import item_bytes
from smolvla_core.config import TrialConfig
from smolvla_core.errors import ConfigError
from smolvla_core.interface import Interface
from smolvla_core.policy import check_policy
from smolvla_core.trial import Inputs, training_frames


@dataclass(frozen=True)
class CachePlan:
    """What a trial, or a search whose trials all draw from one sample stream, needs of the cache."""

    folder: str
    kind: str
    """``embeddings`` or ``frames``."""
    frames: int
    """Values that are stored at most: of training frames in each of their views, and of held-out frames."""
    frame_bytes: int
    """Of one of them, over all cameras."""
    room: int
    """Bytes that they may take: the budget, or what the disk has."""
    fit: int | None
    """Training frames that have room, where not all have and their number is left open; None also where
    too few have to be trained on alone."""

    @property
    def bytes(self) -> int:
        """Of everything."""
        return self.frames * self.frame_bytes

    def text(self, thinned: bool = True) -> str:
        """In words.

        Args:
            thinned: whether only the frames that have room are trained on, as in a search.
        """
        what = "image embeddings" if self.kind == "embeddings" else "decoded frames"
        text = f"{what} of at most {self.frames:,} frames, {size_text(self.frame_bytes)} each: "
        text += f"{size_text(self.bytes)} in {self.folder}"
        if self.bytes <= self.room:
            return text
        text += f", which has room for {size_text(self.room)} (runtime.cache_gb, free disk)"
        if thinned and self.fit is not None:
            return (
                f"{text}: so all trials draw from the same {self.fit:,} training frames, a seeded sub-sample "
                "(data.frames sets another number)"
            )
        return f"{text}; the rest is computed whenever it is drawn"


def plan_cache(config: TrialConfig, inputs: Inputs) -> CachePlan | None:
    """What a trial needs of the cache; None where it is off.

    Raises:
        ConfigError: the cache's folder cannot be made.
    """
    home = home_of(config)
    if home is None:
        return None
    embeds = config.policy.train_expert_only and config.runtime.fast_forward
    fresh = any(config.augment.color_amounts) and config.augment.color_views is None
    kind = "embeddings" if embeds and not fresh else "frames"
    size = embedding_bytes(config, inputs.interface) if kind == "embeddings" else picture_bytes(inputs.interface)
    views = (config.augment.color_views or 1) if kind == "embeddings" else 1
    total = training_frames(config.data)
    rows = min(total, config.data.frames or total)
    held_out = len(inputs.frames.rows)
    wanted = min(rows * views, config.optim.samples) + held_out
    room = _room(home)
    fit = None
    if kind == "embeddings" and wanted * size > room and config.data.frames is None:
        fit = (room // size - held_out) // views
        # fewer than one frame a second would leave out what happens between them
        fit = fit if fit >= total / inputs.dataset.fps else None
    return CachePlan(str(home.folder), kind, wanted, size, room, fit)


def embedding_bytes(config: TrialConfig, interface: Interface) -> int:
    """Bytes of the embeddings of a frame's pictures, by the configurations of policy and VLM."""
    smolvla = check_policy(config, interface)
    vlm = _vlm_config(smolvla.vlm_model_name)
    dtype = torch.bfloat16 if smolvla.load_vlm_weights or config.runtime.precision == "bf16" else torch.float32
    sizes = [smolvla.resize_imgs_with_padding or (view.width, view.height) for view in interface.cameras]
    return sum(item_bytes(embedding_shape(vlm, *size), dtype) for size in sizes)


@lru_cache(maxsize=4)
def _vlm_config(name: str) -> Any:
    try:
        return AutoConfig.from_pretrained(name)  # nosec B615 # no code comes with it
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.pretrained: the configuration of its VLM, {name}, cannot be fetched "
            f"({(str(error).strip().splitlines() or [type(error).__name__])[0]}); check the network"
        ) from None


def picture_bytes(interface: Interface) -> int:
    """Bytes of a frame's decoded pictures."""
    return sum(3 * view.height * view.width for view in interface.cameras)


def _room(home: Home) -> int:
    """What the cache may take in all, were everything else in it removed."""
    return min(home.budget, home.left() + home.used())

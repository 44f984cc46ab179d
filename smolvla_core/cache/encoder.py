"""Pictures -> image embeddings, with the weights of a policy whose vision tower is frozen."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smolvla_core.data.batch import to_floats
from smolvla_core.fast import image_embeddings, pictures_at_once
from smolvla_core.policy import SmolVLAPolicy


@dataclass(frozen=True)
class Encoder:
    """What :meth:`smolvla_core.forward.FastForward.observe` does to pictures, picture by picture."""

    policy: SmolVLAPolicy
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    """Mixed precision, as in training."""
    precision: str
    """``bf16`` where it is on, else ``fp32``."""

    @property
    def at_once(self) -> int:
        """Pictures that are best given together."""
        return pictures_at_once(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of embeddings."""
        connector = self.policy.model.vlm_with_expert.get_vlm_model().connector
        return torch.bfloat16 if self.precision == "bf16" else next(connector.parameters()).dtype

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """(N, W) of the embeddings of a picture of some size."""
        seen = self.policy.config.resize_imgs_with_padding or (width, height)
        return embedding_shape(self.policy.model.vlm_with_expert.config, *seen)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Embeddings (n, N, W), on the policy's device, of pictures (n, 3, H, W) uint8."""
        key = next(iter(self.policy.config.image_features))
        images, _ = self.policy.prepare_images({key: to_floats(pictures.to(self.device))})
        with self.autocast():
            return image_embeddings(self.policy, images[:1])[0]


def embedding_shape(vlm: Any, width: int, height: int) -> tuple[int, int]:
    """Tokens and width (N, W) of a picture's embeddings.

    Args:
        vlm: the configuration of a SmolVLM.
        width: of the picture as the tower sees it, pixels.
        height: likewise.
    """
    patch = vlm.vision_config.patch_size
    tokens = (width // patch) * (height // patch) // vlm.scale_factor**2
    return tokens, vlm.text_config.hidden_size

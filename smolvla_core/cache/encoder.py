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

    @property
    def at_once(self) -> int:
        """Pictures that are best given together."""
        return pictures_at_once(self.device)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Embeddings (n, N, W), on the policy's device, of pictures (n, 3, H, W) uint8."""
        key = next(iter(self.policy.config.image_features))
        images, _ = self.policy.prepare_images({key: to_floats(pictures.to(self.device))})
        with self.autocast():
            return image_embeddings(self.policy, images[:1])[0]

    def output(self) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape (N, W) and dtype of a picture's embeddings."""
        found = self(torch.zeros((1, 3, 32, 32), dtype=torch.uint8))
        return tuple(found.shape[1:]), found.dtype

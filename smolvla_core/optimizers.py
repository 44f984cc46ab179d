"""The optimizers of a trial: AdamW alone, or Muon for the matrices of the transformers' layers beside it.

Muon (`Jordan, 2024 <https://kellerjordan.github.io/posts/muon/>`_; ``torch.optim.Muon``) makes of a matrix's
momentum the nearest orthogonal one. Its step is scaled so that its root mean square is AdamW's
(`Liu et al., 2025 <https://arxiv.org/abs/2502.16982>`_), so that both have one learning rate.
Its momentum is torch's 0.95; ``betas`` and ``eps`` are AdamW's.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from smolvla_core.config import OptimConfig


class Optimizers:
    """Some optimizers that share the trained parameters among them, and a learning rate.

    Args:
        trained: parameters by name.
        config: which optimizers, and how they are set.
    """

    def __init__(self, trained: Mapping[str, nn.Parameter], config: OptimConfig):
        muon = config.optimizer == "muon"
        matrices = [value for name, value in trained.items() if muon and is_layers_matrix(name, value)]
        taken = {id(value) for value in matrices}
        shared: dict[str, Any] = {"lr": config.peak_lr, "weight_decay": config.weight_decay}
        self._all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [value for value in trained.values() if id(value) not in taken],
                betas=config.betas,
                eps=config.eps,
                fused=True,  # one pass over memory in place of ten; the same numbers but for rounding
                **shared,
            )
        ]
        if matrices:
            self._all.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **shared))
        self._of = {id(value): each for each in self._all for group in each.param_groups for value in group["params"]}

    def register_step_pre_hook(self, hook: Callable[..., None]) -> Any:
        """Call a hook before each step; see ``torch.optim.Optimizer.register_step_pre_hook``."""
        return self._all[0].register_step_pre_hook(hook)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for each in self._all:
            each.zero_grad(set_to_none=True)

    def step(self, lr: float) -> None:
        """Update the parameters by their gradients, at a learning rate."""
        for each in self._all:
            for group in each.param_groups:
                group["lr"] = lr
            each.step()

    def state(self, parameter: nn.Parameter) -> Iterator[tuple[str, Tensor]]:
        """What is kept of a parameter from step to step: moments, and for AdamW the count of steps."""
        for key, value in self._of[id(parameter)].state[parameter].items():
            yield key, torch.as_tensor(value)

    def restore(self, parameter: nn.Parameter, state: MutableMapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self._of[id(parameter)].state[parameter] = state


def is_layers_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix of a transformer's layer: of the tower, the VLM or the expert.

    Embeddings and the projections of state, actions and pictures are not: those are AdamW's.
    """
    return parameter.ndim == 2 and name.startswith("model.vlm_with_expert.") and ".layers." in name

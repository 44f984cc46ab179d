"""SmolVLA policies of every shape that upstream builds, tiny, and batches for them.

Unlike the policies of ``smolvla_core.policy`` these can have any of upstream's settings, and their
attention is grouped (two key/value heads for six query heads), as SmolVLM2's is, and their width
has a square root that bf16 rounds.
"""

from pathlib import Path

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from transformers import AutoConfig, AutoProcessor

from smolvla_core.config import TinyConfig
from smolvla_core.tiny_vlm import tiny_vlm_folder

CAMERAS = ("observation.images.camera1", "observation.images.camera2")
SIZE, STATE_DIMS, ACTION_DIMS, TOKENS = 64, 6, 5, 12


def grouped_vlm(cache_dir: Path) -> Path:
    """The folder of a tiny VLM with grouped attention."""
    folder = cache_dir / "grouped_vlm"
    if not folder.is_dir():
        source = tiny_vlm_folder(TinyConfig(hidden_size=96), str(cache_dir))
        AutoProcessor.from_pretrained(source).save_pretrained(folder)
        config = AutoConfig.from_pretrained(source)
        config.text_config.num_key_value_heads = 2
        config.save_pretrained(folder)
    return folder


def make_policy(cache_dir: Path, *, seed: int = 0, bf16_vlm: bool = False, **settings: object) -> SmolVLAPolicy:
    """A policy with random weights; ``settings`` are ``SmolVLAConfig``'s."""
    cameras = {key: PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)) for key in CAMERAS}
    values: dict = {
        "input_features": {"observation.state": PolicyFeature(FeatureType.STATE, (STATE_DIMS,)), **cameras},
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (ACTION_DIMS,))},
        "vlm_model_name": str(grouped_vlm(cache_dir)),
        "num_vlm_layers": 4,
        "resize_imgs_with_padding": (SIZE, SIZE),
        "chunk_size": 8,
        "n_action_steps": 1,
        "num_steps": 3,
        "device": "cpu",
    }
    torch.manual_seed(seed)
    policy = SmolVLAPolicy(SmolVLAConfig(**(values | settings)))
    for name, parameter in policy.named_parameters():
        if "norm" in name and name.endswith("weight"):  # random weights have ones there, which hide rounding
            parameter.data += 0.1 * torch.randn_like(parameter)
    if bf16_vlm:
        policy.model.vlm_with_expert.vlm.to(torch.bfloat16)
    return policy.train()


def make_inputs(policy: SmolVLAPolicy, frames: int = 3, *, seed: int = 1) -> dict[str, torch.Tensor]:
    """A normalised batch, whose instructions are padded to one length."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([TOKENS - 4 + frame for frame in range(frames)])
    inputs = {key: torch.rand(frames, 3, SIZE, SIZE, generator=generator) for key in CAMERAS}
    return inputs | {
        "observation.state": torch.randn(frames, STATE_DIMS, generator=generator),
        "action": torch.randn(frames, policy.config.chunk_size, ACTION_DIMS, generator=generator),
        "observation.language.tokens": torch.randint(10, 700, (frames, TOKENS), generator=generator),
        "observation.language.attention_mask": torch.arange(TOKENS) < lengths[:, None],
    }


def make_flow(policy: SmolVLAPolicy, *shape: int, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise (*shape, T, D) and time (*shape)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(*shape, policy.config.chunk_size, policy.config.max_action_dim, generator=generator)
    return noise, torch.rand(*shape, generator=generator)

"""A folder of the shape of ``lerobot/smolvla_base``, with tiny widths.

Three cameras camera1..camera3, state and action of 6, chunk 50, a bf16 VLM and an fp32 expert.
"""

from pathlib import Path

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from transformers import AutoConfig, AutoProcessor, SmolVLMForConditionalGeneration

from smolvla_core.config import TinyConfig
from smolvla_core.tiny_vlm import tiny_vlm_folder


def write_lookalike(folder: Path, cache_dir: Path) -> Path:
    """Write the policy to ``folder`` and its VLM beside it."""
    vlm = folder.with_name(f"{folder.name}_vlm")
    source = tiny_vlm_folder(TinyConfig(), str(cache_dir))
    AutoProcessor.from_pretrained(source).save_pretrained(vlm)
    torch.manual_seed(0)
    SmolVLMForConditionalGeneration(AutoConfig.from_pretrained(source)).to(torch.bfloat16).save_pretrained(vlm)
    cameras = {f"observation.images.camera{i}": PolicyFeature(FeatureType.VISUAL, (3, 256, 256)) for i in (1, 2, 3)}
    config = SmolVLAConfig(
        input_features={"observation.state": PolicyFeature(FeatureType.STATE, (6,)), **cameras},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))},
        vlm_model_name=str(vlm),
        load_vlm_weights=True,
        num_vlm_layers=4,
        resize_imgs_with_padding=(64, 64),
        device="cpu",
    )
    policy = SmolVLAPolicy(config)
    # fp32 values that bf16 cannot hold, so that a loader that rounds them is found out
    trained = [p for name, p in policy.named_parameters() if "vlm_with_expert.vlm." not in name]
    for parameter in trained:
        parameter.data = parameter.data.float() * 1.0001
    policy.save_pretrained(folder)
    stats = {key: {"mean": torch.zeros(6), "std": torch.ones(6)} for key in ("observation.state", "action")}
    for processor in make_smolvla_pre_post_processors(config, stats):
        processor.save_pretrained(folder)
    return folder

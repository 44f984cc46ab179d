"""What the benchmarks run on: a dataset and a policy folder, made locally, without the hub."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.datasets import LeRobotDataset
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.policies.smolvla.processor_smolvla import make_smolvla_pre_post_processors
from transformers import AutoProcessor, SmolVLMConfig

from smolvla_core.config import TinyConfig
from smolvla_core.tiny_vlm import tiny_vlm_folder

CAMERAS = ("observation.images.camera1", "observation.images.camera2", "observation.images.camera3")
STATE_DIMS, ACTION_DIMS = 32, 23
INSTRUCTION = (
    "Take the three Easter eggs out of the wicker basket on the lawn in the garden, then place them on the lawn "
    "next to a single tree (choose any tree) so that all three eggs are next to the same tree and none are left in "
    "the basket."
)
# HuggingFaceTB/SmolVLM2-500M-Video-Instruct
FULL_TEXT = {
    "model_type": "llama",
    "hidden_size": 960,
    "intermediate_size": 2560,
    "num_hidden_layers": 32,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "vocab_size": 49280,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
}
FULL_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}
# the full one's tokens, and its proportions between vision tower, VLM and expert, at about 1/20 of the compute:
# a quarter of the widths, and half or three quarters of the depth
SMALL_TEXT = FULL_TEXT | {"hidden_size": 240, "intermediate_size": 640, "num_hidden_layers": 12, "head_dim": 16}
SMALL_VISION = FULL_VISION | {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
}
SIZES: dict[str, dict[str, Any]] = {
    "full": {"image": 512, "layers": 16, "text": FULL_TEXT, "vision": FULL_VISION},
    "small": {"image": 512, "layers": 12, "text": SMALL_TEXT, "vision": SMALL_VISION},
    "tiny": {"image": 64, "layers": 4},
}


def write_dataset(root: Path, *, episodes: int = 6, frames: int = 120, fps: int = 30) -> Path:
    """Three cameras of 480x640 in lerobot's default video coding, with moving texture."""
    if (root / "done").is_file():
        return root
    shutil.rmtree(root, ignore_errors=True)
    camera = {"dtype": "video", "shape": (480, 640, 3), "names": ["height", "width", "channel"]}
    features = {
        "observation.state": {"dtype": "float32", "shape": (STATE_DIMS,), "names": None},
        "action": {"dtype": "float32", "shape": (ACTION_DIMS,), "names": None},
        **dict.fromkeys(CAMERAS, camera),
    }
    dataset = LeRobotDataset.create("local/benchmark", fps=fps, features=features, root=root, robot_type="generic")
    rng = np.random.default_rng(0)
    for _ in range(episodes):
        texture = np.kron(rng.integers(0, 255, (60, 80, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        for step in range(frames):
            frame = {key: np.roll(texture, step * (view + 1), axis=1) for view, key in enumerate(CAMERAS)}
            vectors = {
                "observation.state": rng.normal(size=STATE_DIMS).astype(np.float32),
                "action": rng.normal(size=ACTION_DIMS).astype(np.float32),
            }
            dataset.add_frame({**frame, **vectors, "task": INSTRUCTION})
        dataset.save_episode()
    dataset.finalize()
    (root / "done").touch()
    return root


def write_policy(
    folder: Path,
    arch: str,
    cameras: Mapping[str, tuple[int, int]] = dict.fromkeys(CAMERAS, (480, 640)),
    state_dims: int = STATE_DIMS,
    action_dims: int = ACTION_DIMS,
) -> Path:
    """A policy with random weights for a dataset: ``full`` is SmolVLA's own architecture, 450 M parameters."""
    if (folder / "done").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    vlm, size = folder / "vlm", SIZES[arch]
    tiny = tiny_vlm_folder(TinyConfig(), str(folder.parent))
    processor = AutoProcessor.from_pretrained(tiny)
    processor.save_pretrained(vlm)
    if arch == "tiny":
        shutil.copy(tiny / "config.json", vlm)
    else:
        tokens = {
            "pad_token_id": processor.tokenizer.pad_token_id,
            "image_token_id": processor.tokenizer.convert_tokens_to_ids("<image>"),
        }
        described = SmolVLMConfig(text_config=size["text"], vision_config=size["vision"], scale_factor=4, **tokens)
        described.save_pretrained(vlm)
    pictures = {key: PolicyFeature(FeatureType.VISUAL, (3, *shape)) for key, shape in cameras.items()}
    config = SmolVLAConfig(
        input_features={"observation.state": PolicyFeature(FeatureType.STATE, (state_dims,)), **pictures},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (action_dims,))},
        vlm_model_name=str(vlm),
        num_vlm_layers=size["layers"],
        resize_imgs_with_padding=(size["image"], size["image"]),
        max_state_dim=max(32, state_dims),
        tokenizer_max_length=256,  # the local tokenizer cuts finer than SmolVLM2's, whose instruction has 60 tokens
        device="cpu",
    )
    torch.manual_seed(0)
    SmolVLAPolicy(config).save_pretrained(folder)
    widths = {"observation.state": state_dims, "action": action_dims}
    stats = {key: {"mean": torch.zeros(width), "std": torch.ones(width)} for key, width in widths.items()}
    for processor in make_smolvla_pre_post_processors(config, stats):
        processor.save_pretrained(folder)
    (folder / "done").touch()
    return folder

"""What a stored value depends on: all of it is in the name of its folder, so that nothing stale is ever read."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from smolvla_core.augment import ColorJitter
from smolvla_core.data.dataset import Dataset
from smolvla_core.data.pictures import Camera, video_decoder
from smolvla_core.policy import SmolVLAPolicy

# their releases may decode, resize or compute differently
_PACKAGES = ("lerobot", "torch", "transformers")


def frames_identity(dataset: Dataset, camera: Camera) -> dict[str, Any]:
    """Of a camera's decoded frames."""
    return {
        "kind": "frames",
        "dataset": dataset.root.name,
        "data": dataset.digest,
        "camera": camera.key,
        "decoder": video_decoder() if camera.is_video else "pillow",
        "versions": {"lerobot": version("lerobot")},
    }


def embeddings_identity(
    dataset: Dataset,
    camera: Camera,
    encoder: str,
    resize: tuple[int, int] | None,
    device: torch.device,
    precision: str,
    views: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Of the embeddings of a camera's frames.

    Args:
        dataset: the camera's.
        camera: of the dataset.
        encoder: digest of the tower's and the connector's weights.
        resize: width and height that pictures are brought to.
        device: kernels of another kind of device round differently.
        precision: ``bf16`` autocast, or ``fp32``.
        views: :func:`views_identity`; None for pictures as they were recorded.
    """
    return {
        **frames_identity(dataset, camera),
        "kind": "embeddings",
        "encoder": encoder,
        "resize": None if resize is None else list(resize),
        "device": device.type,
        "precision": precision,
        "views": views,
        "versions": {name: version(name) for name in _PACKAGES},
    }


def views_identity(jitter: ColorJitter, place: int) -> dict[str, Any]:
    """Of a jitter's fixed views of a camera.

    Args:
        jitter: with fixed views.
        place: of the camera among the policy's, which decides its draw where cameras have their own.
    """
    return {"count": jitter.views, "amounts": list(jitter.amounts), "place": None if jitter.same_draw else place}


def prefixes_identity(
    dataset: Dataset,
    embeddings: Iterable[Mapping[str, Any]],
    language: str,
    tokens: Tensor,
    with_actions: bool,
) -> dict[str, Any]:
    """Of what the VLM makes of a dataset's frames.

    Args:
        dataset: the frames'.
        embeddings: :func:`embeddings_identity` of each of the policy's cameras, in its order.
        language: digest of the language model (:func:`language_digest`).
        tokens: of the dataset's instructions.
        with_actions: see :func:`smolvla_core.fast.encode_prefix`.
    """
    return {
        "kind": "prefixes",
        "dataset": dataset.root.name,
        "camera": "all",
        "embeddings": [name_of(each) for each in embeddings],
        "language": language,
        "tokens": tokens.tolist(),
        "with_actions": with_actions,
    }


def encoder_digest(policy: SmolVLAPolicy) -> str:
    """Digest of everything that turns a picture into embeddings."""
    vlm = policy.model.vlm_with_expert.get_vlm_model()
    return _digest(vlm.vision_model.config.to_dict(), vlm.vision_model, vlm.connector)


def language_digest(policy: SmolVLAPolicy) -> str:
    """Digest of everything that turns embeddings and tokens into keys and values."""
    model = policy.model
    language = model.vlm_with_expert.get_vlm_model().text_model
    settings = ("self_attn_every_n_layers", "attention_mode", "num_vlm_layers", "num_expert_layers")
    asked = {name: getattr(policy.config, name) for name in (*settings, "add_image_special_tokens")}
    return _digest(language.config.to_dict() | asked, language)


def _digest(settings: Mapping[str, Any], *parts: nn.Module) -> str:
    digest = xxhash.xxh3_128(json.dumps(settings, sort_keys=True, default=str).encode())
    for part in parts:
        for name, value in sorted(part.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(memoryview(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def name_of(identity: Mapping[str, Any]) -> str:
    """A folder's name: readable, and different for every identity."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    words = f"{identity['dataset']}-{str(identity['camera']).removeprefix('observation.')}-{identity['kind']}"
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', words)[:80].lstrip('.')}-{digest}"

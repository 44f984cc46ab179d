"""SmolVLA's forward without what is constant: the same numbers as lerobot's, many times faster.

Where the whole VLM is frozen, most of lerobot's ``VLAFlowMatching.forward`` computes constants of
the frame; where it is trained, the same passes run with gradients in all of them. Its attention mask
has three blocks: image and language tokens see each other, the state token sees them and itself,
action tokens see those and the actions before them. So a block never depends on a later one, and the
forward falls into passes that meet in keys and values alone:

    1. ``image_embeddings``  pixels -> embeddings through tower and connector          no gradients
    2. ``encode_prefix``     images + language -> K, V of every VLM layer              no gradients
    3. ``join_state``        state -> K, V, attending to those of (2)                  gradients
    4. ``velocity``          noisy actions -> velocity, attending to the K, V of both  gradients

(1) and (2) are constants of the frame and may come from a cache; they serve all noise draws and all
Euler steps. Only keys and values leave (2), so the last
layer's attention and MLP are not computed. Nothing here is an approximation; where lerobot promotes
a bf16 VLM's values to the expert's fp32, so does this (see ``encode_prefix``).

Legend: B frames, C cameras, N tokens of an image, W the VLM's width, L language tokens, S state
dims, K noise draws of a frame, T action steps, D padded action dims, P tokens before the actions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lerobot.policies.common.flow_matching import euler_integrate
from torch import Tensor

from smolvla_core.fast_layers import KeysValues, attend, finish, heads, output_dtype, rotate, rotation_of
from smolvla_core.policy import SmolVLAPolicy
from smolvla_core.prefix import Prefix

_PICTURES_ON_GPU = 8


@dataclass(frozen=True)
class Observation:
    """What the VLM sees of B frames, prepared as lerobot prepares it, with embeddings for pixels."""

    embeddings: tuple[Tensor, ...]
    """C tensors (B, N, W) of :func:`image_embeddings`."""
    image_masks: tuple[Tensor, ...]
    """C tensors (B,), false where a camera is missing."""
    tokens: Tensor
    """(B, L) of the instruction."""
    token_mask: Tensor
    """(B, L), false at padding."""


@dataclass(frozen=True)
class Context:
    """What the action tokens attend to: constant over noise and time."""

    layers: tuple[KeysValues, ...]
    """For each layer of the expert, (B, P, ...): the VLM's own K and V where actions and prefix
    attend jointly, the expert's projections of them where it attends across."""
    mask: Tensor
    """(B, P), false at padding."""


class _Pair(NamedTuple):
    """A layer of the VLM and the expert's beside it, or None where the expert has fewer."""

    vlm: Any
    expert: Any
    joint: bool
    """Actions attend to the prefix and to each other; else to the prefix alone, across."""


def what_is_trained(policy: SmolVLAPolicy) -> str:
    """In a few words, whether something of the VLM is trained."""
    trained = _trained_of_vlm(policy)
    if trained:
        part = "vision tower" if all("vision_model" in name or "connector" in name for name in trained) else "VLM"
        return f"the {part} is trained"
    return "the VLM is frozen: images and language are encoded without gradients, once for all noise draws"


def trains_vlm(policy: SmolVLAPolicy) -> bool:
    """Whether anything of the VLM is trained, so that what it makes of a frame changes."""
    return bool(_trained_of_vlm(policy))


def _trained_of_vlm(policy: SmolVLAPolicy) -> list[str]:
    return [name for name, p in policy.model.vlm_with_expert.vlm.named_parameters() if p.requires_grad]


@torch.no_grad()
def image_embeddings(policy: SmolVLAPolicy, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Embeddings of C cameras' pictures, which a frozen tower never changes; without gradients.

    The tower is always given as many pictures (:func:`pictures_at_once`): how a kernel rounds may
    depend on the size of its input, and a picture's embedding must not depend on those beside it.

    Args:
        policy: with the vision tower and the connector.
        images: C tensors (B, 3, height, width) as ``SmolVLAPolicy.prepare_images`` makes them:
            resized, in [-1, 1].

    Returns:
        C tensors (B, N, W) in the tower's output dtype, *before* the scaling by sqrt(W) that
        ``embed_prefix`` applies in that dtype.
    """
    return tuple(_embed(policy, image) for image in images)


def trained_embeddings(policy: SmolVLAPolicy, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """As :func:`image_embeddings` of a tower that changes: with gradients, all of a batch's pictures at once."""
    embed = policy.model.vlm_with_expert.embed_image
    if len({image.shape[1:] for image in images}) > 1:
        return tuple(embed(image) for image in images)
    found: Tensor = embed(torch.cat(list(images)))
    return found.split([len(image) for image in images])


def _embed(policy: SmolVLAPolicy, image: Tensor) -> Tensor:
    size, count = pictures_at_once(image.device), len(image)
    padding = -count % size
    padded = torch.cat([image, image[-1:].expand(padding, -1, -1, -1)]) if padding else image
    found = [policy.model.vlm_with_expert.embed_image(part) for part in padded.split(size)]
    return torch.cat(found)[:count]


def pictures_at_once(device: torch.device) -> int:
    """How many pictures the tower takes at a time: one on a CPU, where more of them are slower."""
    return _PICTURES_ON_GPU if device.type == "cuda" else 1


def flow_errors(policy: SmolVLAPolicy, context: Context, action: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Squared errors of the predicted velocity (B, T, D): ``VLAFlowMatching.forward``.

    Args:
        policy: the policy.
        context: of B frames.
        action: (B, T, D), normalised and padded.
        noise: (B, T, D) standard normal; or (B, K, T, D), over whose draws the errors are averaged.
        time: (B,), or (B, K), in (0, 1]; 1 is pure noise.
    """
    if noise.ndim == 3:
        noise, time = noise[:, None], time[:, None]
    noisy, target = flow_pair(action[:, None], noise, time)
    predicted = velocity(policy, context, noisy, time)
    return F.mse_loss(target, predicted, reduction="none").mean(dim=1)


def expert_errors(
    policy: SmolVLAPolicy, prefix: Prefix, state: Tensor, action: Tensor, noise: Tensor, time: Tensor
) -> Tensor:
    """:func:`join_state` and :func:`flow_errors`: all that has gradients where the VLM is frozen."""
    return flow_errors(policy, join_state(policy, prefix, state), action, noise, time)


def flow_pair(action: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy actions, and the velocity that leads from the actions to the noise, each (B, K, T, D)."""
    share = time[..., None, None]
    return share * noise + (1 - share) * action, noise - action


@torch.no_grad()
def sample_actions(policy: SmolVLAPolicy, context: Context, noise: Tensor) -> Tensor:
    """Integrate the flow from noise (B, K, T, D) to actions: ``VLAFlowMatching.sample_actions``.

    Args:
        policy: the policy.
        context: of B frames, from ``join_state(..., with_actions=False)``.
        noise: K draws for each frame.
    """

    def step(noisy: Tensor, time: Tensor) -> Tensor:
        return velocity(policy, context, noisy, time[:, None].expand(noisy.shape[:2]))

    return euler_integrate(step, noise, policy.config.num_steps)


def encode_prefix(policy: SmolVLAPolicy, observation: Observation, with_actions: bool = True) -> Prefix:
    """Run images and language through the VLM; the state does not count. Without gradients where it is frozen.

    Args:
        policy: the policy.
        observation: of B frames.
        with_actions: round as lerobot does when prefix and actions run in one pass, which is how it
            trains: layers in which they attend jointly then hold queries, keys and values in the
            wider of the VLM's and the expert's dtypes. False: as in its prediction, where the
            prefix runs alone, in the VLM's dtype. In one dtype both are the same.
    """
    model = policy.model
    with torch.set_grad_enabled(torch.is_grad_enabled() and trains_vlm(policy)):
        embedded, mask = _embed_prefix(model, observation)
        wide = _token_dtype(policy, embedded)
        positions = torch.cumsum(mask, dim=1) - 1
        seen = _run_vlm(_pairs(model), embedded.to(wide), positions, mask[:, None], None, with_actions)
    return Prefix(tuple(seen), mask, wide)


def prefix_heads(policy: SmolVLAPolicy) -> tuple[int, int]:
    """Key/value heads, and dims of each, in a layer of a :class:`Prefix`."""
    attention, dim = _pairs(policy.model)[0].vlm.self_attn, _head_dim(policy.model)
    return attention.k_proj.out_features // dim, dim


def prefix_dtypes(policy: SmolVLAPolicy, with_actions: bool) -> tuple[torch.dtype, ...]:
    """Of keys and values in each layer that :func:`encode_prefix` answers."""
    return tuple(_kept_dtype(pair, with_actions) for pair in _pairs(policy.model))


@torch.no_grad()
def prefix_tokens(policy: SmolVLAPolicy, pictures: Sequence[int], tokens: Tensor) -> tuple[int, torch.dtype]:
    """P of a prefix with so many tokens of each picture and an instruction's ``tokens`` (1 or more, L); its dtype."""
    width = policy.model.vlm_with_expert.config.text_config.hidden_size
    connector = policy.model.vlm_with_expert.get_vlm_model().connector
    nothing = [torch.zeros(1, count, width, dtype=next(connector.parameters()).dtype) for count in pictures]
    there = torch.ones(1, dtype=torch.bool)
    seen = Observation(tuple(nothing), (there,) * len(nothing), tokens[:1], torch.ones_like(tokens[:1]).bool())
    embedded, mask = _embed_prefix(policy.model, seen)
    return mask.shape[1], _token_dtype(policy, embedded)


def _token_dtype(policy: SmolVLAPolicy, embedded: Tensor) -> torch.dtype:
    return torch.promote_types(embedded.dtype, output_dtype(policy.model.state_proj))


def join_state(policy: SmolVLAPolicy, prefix: Prefix, state: Tensor, with_actions: bool = True) -> Context:
    """Run the state through the VLM, behind a prefix.

    Args:
        policy: the policy.
        prefix: of B frames, encoded with the same ``with_actions``.
        state: (B, S), normalised and padded to the policy's width.
        with_actions: as for :func:`encode_prefix`.

    Returns:
        The context, with gradients towards the state projection and the expert's cross-attention.
    """
    model = policy.model
    pairs = _pairs(model)
    token = model.state_proj(state)[:, None]
    mask = F.pad(prefix.mask, (0, 1), value=True)
    position = prefix.mask.sum(dim=1, keepdim=True)
    whole = _run_vlm(pairs, token.to(prefix.dtype), position, mask[:, None], prefix.layers, with_actions)
    met = [_seen_by_expert(pair, seen) for pair, seen in zip(pairs, whole, strict=True) if pair.expert is not None]
    return Context(tuple(met), mask)


def velocity(policy: SmolVLAPolicy, context: Context, noisy: Tensor, time: Tensor) -> Tensor:
    """The expert's velocity (B, K, T, D) at noisy actions: ``VLAFlowMatching.denoise_step``.

    The K draws of a frame are one sequence of K * T tokens whose draws do not see each other.

    Args:
        policy: the policy.
        context: of B frames.
        noisy: (B, K, T, D).
        time: (B, K).
    """
    model = policy.model
    frames, draws, steps = noisy.shape[:3]
    hidden, _, _ = model.embed_suffix(noisy.flatten(0, 1), time.flatten())
    hidden = hidden.view(frames, draws * steps, -1)
    within = torch.arange(steps, device=noisy.device).repeat(draws)[None]
    draw = torch.arange(draws, device=noisy.device).repeat_interleave(steps)[None]
    earlier = (draw[:, :, None] == draw[:, None]) & (within[:, :, None] >= within[:, None])
    across = context.mask[:, None]
    jointly = torch.cat([across.expand(-1, draws * steps, -1), earlier.expand(frames, -1, -1)], dim=2)
    dim = _head_dim(model)
    # positions go on after the prefix where actions join its attention, and restart from 0 across it
    joined = rotation_of(context.mask.sum(dim=1, keepdim=True) + within, dim)
    restarted = rotation_of(within, dim)
    pairs = [pair for pair in _pairs(model) if pair.expert is not None]
    for pair, seen in zip(pairs, context.layers, strict=True):
        attention, normed = pair.expert.self_attn, pair.expert.input_layernorm(hidden)
        query = heads(attention.q_proj, normed, dim)
        if pair.joint:
            own = KeysValues(rotate(heads(attention.k_proj, normed, dim), joined), heads(attention.v_proj, normed, dim))
            attended = attend(rotate(query, joined), seen.then(own), jointly)
        else:
            attended = attend(rotate(query, restarted), seen, across)
        hidden = finish(pair.expert, hidden, attended)
    hidden = model.vlm_with_expert.lm_expert.norm(hidden).to(torch.float32)
    return model.action_out_proj(hidden).view(noisy.shape)


def _embed_prefix(model: Any, observation: Observation) -> tuple[Tensor, Tensor]:
    """Embeddings and mask of images and language: ``embed_prefix`` without state and padding.

    ``prefix_length`` pads behind the state with tokens that nobody sees and that take no position,
    so it has no effect here.
    """
    vlm = model.vlm_with_expert
    parts: list[tuple[Tensor, Tensor]] = []

    def add_special(ids: Tensor, like: Tensor) -> None:
        tokens = vlm.embed_language_tokens(ids.to(like.device)).expand(len(like), -1, -1)
        parts.append((tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=like.device)))

    for embedding, present in zip(observation.embeddings, observation.image_masks, strict=True):
        if model.add_image_special_tokens:
            add_special(model.global_image_start_token, embedding)
        scale = torch.tensor(embedding.shape[-1] ** 0.5, dtype=embedding.dtype, device=embedding.device)
        parts.append((embedding * scale, present[:, None].expand(embedding.shape[:2])))
        if model.add_image_special_tokens:
            add_special(model.image_end_token, embedding)
    language = vlm.embed_language_tokens(observation.tokens)
    parts.append((language * math.sqrt(language.shape[-1]), observation.token_mask))
    embeddings, masks = zip(*parts, strict=True)
    return torch.cat(embeddings, dim=1), torch.cat(masks, dim=1)


def _run_vlm(
    pairs: Sequence[_Pair],
    hidden: Tensor,
    positions: Tensor,
    mask: Tensor,
    before: Sequence[KeysValues] | None,
    with_actions: bool,
) -> list[KeysValues]:
    """Keys and values of each layer, those of ``before`` included.

    Queries of padding attend to real tokens here and are masked in lerobot; nothing reads either.
    """
    found = []
    rotation = rotation_of(positions, pairs[0].vlm.self_attn.head_dim)
    for index, pair in enumerate(pairs):
        attention, normed = pair.vlm.self_attn, pair.vlm.input_layernorm(hidden)
        dim = attention.head_dim
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        query, key, value = (heads(projection, normed, dim) for projection in projections)
        dtype = _kept_dtype(pair, with_actions)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        seen = KeysValues(rotate(key, rotation), value)
        seen = seen if before is None else before[index].then(seen)
        found.append(seen)
        if index + 1 < len(pairs):
            hidden = finish(pair.vlm, hidden, attend(rotate(query, rotation), seen, mask))
    return found


def _kept_dtype(pair: _Pair, with_actions: bool) -> torch.dtype:
    """Of a layer's queries, keys and values; see :func:`encode_prefix`."""
    own = output_dtype(pair.vlm.self_attn.k_proj)
    if with_actions and pair.joint and pair.expert is not None:
        return torch.promote_types(own, output_dtype(pair.expert.self_attn.q_proj))
    return own


def _seen_by_expert(pair: _Pair, seen: KeysValues) -> KeysValues:
    """What the expert's layer attends to, in place of the VLM's keys and values."""
    if pair.joint or pair.expert is None:
        return seen
    attention = pair.expert.self_attn
    dim = attention.head_dim
    return KeysValues(
        heads(attention.k_proj, seen.keys.flatten(2), dim), heads(attention.v_proj, seen.values.flatten(2), dim)
    )


def _pairs(model: Any) -> list[_Pair]:
    """The layers in order, up to the expert's last: what the VLM does after it, nobody sees."""
    both = model.vlm_with_expert
    vlm_layers, expert_layers = both.get_model_layers([both.get_vlm_model().text_model, both.lm_expert])
    every = both.self_attn_every_n_layers
    pairs = [
        _Pair(vlm, expert, "cross" not in both.attention_mode or (every > 0 and index % every == 0))
        for index, (vlm, expert) in enumerate(zip(vlm_layers, expert_layers, strict=True))
    ]
    while pairs[-1].expert is None:
        pairs.pop()
    return pairs


def _head_dim(model: Any) -> int:
    return int(model.vlm_with_expert.vlm.config.text_config.head_dim)

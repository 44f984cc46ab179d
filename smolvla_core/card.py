"""What an exported policy tells of itself in its folder: a card for programs, a README for people."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from smolvla_core.config import TrialConfig
from smolvla_core.data.keys import TASK_INFO

if TYPE_CHECKING:  # a report reads a card, and needs neither torch nor lerobot for it
    from smolvla_core.interface import Interface

CARD_FILE = "smolvla_core.json"
_PACKAGES = ("lerobot", "torch", "transformers")


def describe(samples: int, config: TrialConfig, interface: "Interface", needs: Sequence[str]) -> dict[str, Any]:
    """What the card says of a policy that was trained on so many samples and needs these packages to be loaded."""
    return {
        "control_hz": interface.fps / config.data.frame_stride,
        "action_s": config.data.frame_stride / interface.fps,
        "n_action_steps": config.policy.action_steps,
        "chunk_size": config.policy.chunk_size,
        "robot_type": interface.robot_type,
        "instructions": list(interface.instructions),
        "cameras": {view.dataset_key: view.policy_key for view in interface.cameras},
        "state_indices": list(interface.selection.indices),
        "state_features": [feature.name for feature in interface.features],
        "relative_actions": [action for action, _ in interface.relative],
        "needs": list(needs),
        "privileged_inputs": [TASK_INFO] if any(f.reads_task_info for f in interface.features) else [],
        "raw_state_width": interface.selection.raw_width,
        "samples_seen": samples,
        "versions": {name: version(name) for name in _PACKAGES},
    }


def acting_code(card: Mapping[str, Any]) -> str:
    """The line of Python that asks the policy, called ``policy``, for what to do."""
    if not card.get("relative_actions"):
        return "action = postprocess(policy.select_action(preprocess(observation)))"
    chunk = "postprocess(policy.predict_action_chunk(preprocess(observation)))"
    return f"actions = {chunk}[0, : policy.config.n_action_steps]"


def readme(card: Mapping[str, Any], carries_vlm: bool) -> str:
    """The README of a policy's folder."""
    lines = [
        "---\nlibrary_name: lerobot\npipeline_tag: robotics\ntags: [smolvla]\n---",
        "# SmolVLA policy",
        f"Trained on {card['samples_seen']} samples. Takes the dataset's raw observation "
        f"({card['raw_state_width']} state dims, of which it uses {len(card['state_indices'])}) and controls at "
        f"{card['control_hz']:g} Hz, {card['n_action_steps']} of {card['chunk_size']} predicted actions at a time. "
        f"Hold each action for {card['action_s']:.4g} s.",
        "```python\nfrom lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy\n"
        "from lerobot.policies.factory import make_pre_post_processors\n\n"
        'device = "cpu"  # or cuda\n'
        'policy = SmolVLAPolicy.from_pretrained("THIS_FOLDER").to(device)\n'
        'on = {"device_processor": {"device": device}}\n'
        'preprocess, postprocess = make_pre_post_processors(policy.config, "THIS_FOLDER", preprocessor_overrides=on)\n'
        f"{acting_code(card)}\n```",
    ]
    if card["relative_actions"]:
        steps = "steps of its processors" if not card["needs"] else "a step of its pre-processor from `smolvla_core`"
        lines.append(
            f"It predicts the ways of its joints from where they stand, of which {steps} and its post-processor make "
            "positions. So a chunk is to be post-processed as a whole: `select_action` would add each of its actions "
            "to where the robot has come to by then, and so does `lerobot-eval`, unless n_action_steps is 1."
        )
    if card["state_features"]:
        lines.append(
            f"It also sees {', '.join(card['state_features'])}, computed from the raw observation by a step of its "
            "pre-processor that stock lerobot does not have: it loads only where the Python package `smolvla_core` "
            "is installed."
        )
    if card["privileged_inputs"]:
        lines.append(
            f"It needs {', '.join(card['privileged_inputs'])} in the observation, which the challenge's standard "
            "track does not provide."
        )
    if carries_vlm:
        lines.append(
            "The folder carries the configuration and tokenizer of its VLM, and names them by an absolute path. "
            "After moving it, run `python -m smolvla_core.checkpoint relocate FOLDER` once."
        )
    return "\n\n".join(lines) + "\n"

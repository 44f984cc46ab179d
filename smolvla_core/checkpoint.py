"""A trial's state, from which it continues to the same numbers, and its export as a policy.

The state holds what training changes: trained weights, their moving average, the optimizer's
moments and the counters. Everything else is a pure function of the configuration. No pickle is
written or read.
"""

import copy
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from smolvla_core.card import CARD_FILE, describe, readme
from smolvla_core.command import OK, answer, refuse_unwritable
from smolvla_core.config import TrialConfig
from smolvla_core.errors import DamagedStateError, DataError, UserError, first_line
from smolvla_core.features import feature_to_dict
from smolvla_core.interface import Interface
from smolvla_core.learner import Learner, Lesson
from smolvla_core.lerobot_step import AppendFeaturesStep
from smolvla_core.policy import (
    input_features,
    local_vlm,
    make_processors,
    point_at_vlm,
    raw_stats,
)
from smolvla_core.pretrained import PROJECTION_FILE, SEEN_FILE, STATE_PROJ, columns_seen
from smolvla_core.relative import acting_steps
from smolvla_core.state_proj import folded, rounded_up

STATE_FILE = "trial.json"
TENSORS_FILE = "trial.safetensors"
VLM_FOLDER = "vlm"


def save_state(learner: Learner, folder: Path) -> None:
    """Write a trial's state; a folder that appears is complete.

    Args:
        learner: the trial.
        folder: made or replaced.
    """
    tensors = {f"model/{name}": value.detach() for name, value in learner.trained.items()}
    for name, value in (learner.ema or {}).items():
        tensors[f"ema/{name}"] = value
    for name, parameter in learner.trained.items():
        for key, value in learner.optimizers.state(parameter):
            tensors[f"optim.{key}/{name}"] = value
    counters = {
        "samples_seen": learner.samples_seen,
        "step": learner.step_count,
        "micro_batch": learner.micro_batch,
    }
    document = {**counters, "config": learner.config.to_dict(), "interface": learner.interface.to_dict()}
    staging = _staging(folder)
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, staging / TENSORS_FILE)
    (staging / STATE_FILE).write_text(json.dumps(document), encoding="utf-8")
    _publish(staging, folder)


def load_state(learner: Learner, folder: Path) -> None:
    """Bring a fresh learner to a saved state.

    Raises:
        DamagedStateError: the state is missing or damaged.
        DataError: it is of another architecture.
    """
    document = read_state(folder)
    tensors = _read_tensors(folder / TENSORS_FILE)
    device = learner.device
    stored = {name.removeprefix("model/") for name in tensors if name.startswith("model/")}
    if stored != set(learner.trained):
        odd = sorted(stored ^ set(learner.trained))[0]
        raise DataError(f"{folder}: '{odd}' is trained on one side only; resume with the configuration it was saved by")
    with torch.no_grad():
        for name, parameter in learner.trained.items():
            if tensors[f"model/{name}"].shape != parameter.shape:
                raise DataError(f"{folder}: '{name}' has another shape; resume with the configuration it was saved by")
            parameter.copy_(tensors[f"model/{name}"])
            if learner.ema is not None:
                learner.ema[name].copy_(tensors[f"ema/{name}"])
            kept = {
                key.split("/")[0].removeprefix("optim."): value.to(device)
                for key, value in tensors.items()
                if key.startswith("optim.") and key.partition("/")[2] == name
            }
            learner.optimizers.restore(parameter, kept)
    learner.samples_seen, learner.step_count = document["samples_seen"], document["step"]
    learner.micro_batch = document.get("micro_batch", learner.micro_batch)


def read_state(folder: Path) -> dict[str, Any]:
    """The counters, configuration and interface of a saved state.

    Raises:
        DamagedStateError: the folder holds no complete state.
    """
    _put_back(folder)
    file = folder / STATE_FILE
    if not file.is_file() or not (folder / TENSORS_FILE).is_file():
        raise DamagedStateError(
            f"{folder}: holds no trial state ({STATE_FILE} and {TENSORS_FILE}); give a folder that does, or start anew"
        )
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:  # no JSON, or no text
        raise DamagedStateError(f"{file}: damaged; resume from another state or start anew") from None
    return document


def export_policy(state_folder: Path, out: Path) -> None:
    """Write a trial's state as a complete LeRobot policy.

    The result takes the dataset's *raw* observation: the state projection is folded over the raw dims
    (``state_proj.folded``), and the normaliser gets mean 0 and deviation 1 where the policy does not
    look. Stock lerobot loads it as it is, unless the policy has engineered features: those are not
    linear in the raw state, so its pre-processor then begins with a step of ``smolvla_core``, which
    must be installed. A local VLM's configuration and tokenizer are copied into the folder. The state
    projection as it was trained lies beside, so that training can go on from the policy
    (``smolvla_core.pretrained``).

    Args:
        state_folder: what :func:`save_state` wrote.
        out: the policy's folder; made or replaced.

    Raises:
        DataError: the state is missing or damaged, or something else than an exported policy is in ``out``.
    """
    refuse_to_replace(out)
    document = read_state(state_folder)
    interface = Interface.from_dict(document["interface"])
    config = TrialConfig.from_dict(document["config"])
    # exporting needs the weights alone; where they are computed does not matter
    config = config.with_values({"runtime.device": "cpu", "runtime.compile": False})
    learner = Learner(config, Lesson(interface, weights=np.ones(1, dtype=np.float32)))
    load_state(learner, state_folder)
    learner.swap_ema()

    policy, exported = learner.policy, copy.deepcopy(learner.policy.config)
    raw_width = interface.selection.raw_width
    weights = dict(policy.state_dict())
    if not interface.selection.keeps_everything:
        needed = raw_width + interface.state_width - interface.selection.width
        exported.max_state_dim = max(exported.max_state_dim, rounded_up(needed))
        projection = folded(policy.model.state_proj, interface, exported.max_state_dim)
        weights |= {f"{STATE_PROJ}.{name}": value.detach() for name, value in projection.named_parameters()}
    exported.input_features = input_features(interface, raw_width)
    exported.push_to_hub = False
    processors = make_processors(exported, interface, raw_stats(interface))
    if interface.features:
        step = AppendFeaturesStep([feature_to_dict(feature) for feature in interface.features])
        processors.pre.steps = [step, *processors.pre.steps]

    if interface.relative:
        before, after = acting_steps(interface.relative, interface.action_width, raw_width)
        processors.pre.steps = [before, *processors.pre.steps]
        processors.post.steps = [*processors.post.steps, after]

    staging = _staging(out)
    if (vlm := local_vlm(exported)) is not None:
        weights_too = () if exported.load_vlm_weights else ("*.safetensors", "*.bin", "*.pt", "*.pth")
        shutil.copytree(vlm, staging / VLM_FOLDER, ignore=shutil.ignore_patterns(*weights_too))
        point_at_vlm(exported, processors, str(out.absolute() / VLM_FOLDER))
    policy.save_pretrained(staging, state_dict={name: value.contiguous() for name, value in weights.items()})
    exported.save_pretrained(staging)
    processors.pre.save_pretrained(staging)
    processors.post.save_pretrained(staging)
    needs = {type(step).__module__.partition(".")[0] for step in processors.pre.steps} & {__package__}
    card = describe(document["samples_seen"], config, interface, sorted(needs))
    save_file(policy.model.state_proj.state_dict(), staging / PROJECTION_FILE)
    (staging / SEEN_FILE).write_text(json.dumps(columns_seen(interface)), encoding="utf-8")
    (staging / CARD_FILE).write_text(json.dumps(card, indent=2), encoding="utf-8")
    (staging / "train_config.yaml").write_text(TrialConfig.from_dict(document["config"]).to_yaml(), encoding="utf-8")
    (staging / "README.md").write_text(readme(card, vlm is not None), encoding="utf-8")
    _publish(staging, out)


def refuse_to_replace(out: Path) -> None:
    """Refuse what is no exported policy as the place of one: it would be removed.

    Raises:
        DataError: something else is there.
    """
    try:
        theirs = out.exists() and not (out / CARD_FILE).is_file() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise DataError(f"{out}: cannot be read ({error.strerror}); give another folder") from None
    if theirs:
        raise DataError(f"{out}: is there, and is no exported policy that may be replaced; give a new folder")


def relocate(folder: Path) -> None:
    """Point a policy that was moved, and carries its VLM, at its own folder again.

    Raises:
        DataError: the folder is no such policy, or a damaged one, of which nothing was changed.
    """
    if not (folder / VLM_FOLDER).is_dir():
        raise DataError(f"{folder}: carries no '{VLM_FOLDER}' folder; nothing needs to be relocated")
    home = str(folder.absolute() / VLM_FOLDER)
    config, preprocessor = (_read_json(folder / name) for name in ("config.json", "policy_preprocessor.json"))
    config["vlm_model_name"] = home
    for step in preprocessor.get("steps", []):
        if "tokenizer_name" in step.get("config", {}):
            step["config"]["tokenizer_name"] = home
    for name, document in (("config.json", config), ("policy_preprocessor.json", preprocessor)):
        (folder / name).write_text(json.dumps(document, indent=2), encoding="utf-8")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({first_line(error)}); copy the policy again, whole") from None
    if not isinstance(document, dict):
        raise DataError(f"{file}: is no JSON object; copy the policy again, whole")
    return document


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DamagedStateError(f"{file}: damaged ({error}); resume from another state or start anew") from None
    return tensors


def _staging(folder: Path) -> Path:
    staging = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def _publish(staging: Path, folder: Path) -> None:
    """Let a folder appear whole, in place of one that may be there: until it is on the disk, that one is kept."""
    _follow_umask(staging)
    retired = folder.with_name(f"{_retired(folder)}{os.getpid()}")
    if folder.exists():
        for file in (file for file in staging.rglob("*") if file.is_file()):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        os.replace(folder, retired)
    os.replace(staging, folder)
    shutil.rmtree(retired, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """Give a folder back its name that :func:`_publish` was killed while it replaced."""
    if not folder.exists():
        for retired in folder.parent.glob(f"{_retired(folder)}*"):
            os.replace(retired, folder)
            return


def _retired(folder: Path) -> str:
    return f".{folder.name}.old-"


def _follow_umask(folder: Path) -> None:
    """Let others read what the umask lets them read; safetensors writes for its owner alone."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def main(arguments: list[str]) -> int:
    """``python -m smolvla_core.checkpoint export STATE OUT`` and ``... relocate FOLDER``."""

    def command() -> int:
        match arguments:
            case ["export", state, out]:
                refuse_unwritable("OUT", Path(out).parent)
                export_policy(Path(state), Path(out))
            case ["relocate", folder]:
                relocate(Path(folder))
            case _:
                raise UserError("usage: python -m smolvla_core.checkpoint export STATE OUT | relocate FOLDER")
        return OK

    return answer(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

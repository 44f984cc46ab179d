"""How the best trial is used: the code that loads it, the commands that train it again and show it in MLflow."""

import json
import shlex
from typing import Any

from smolvla_core.card import CARD_FILE, acting_code
from smolvla_core.command import python_command
from tune.report.study_files import StudyFiles
from tune.summary import Summary
from tune.tracking import viewing_command, viewing_page


def use_of(study: StudyFiles, summary: Summary) -> dict[str, str]:
    """``load``, ``train`` and ``mlflow``, each to be copied, or empty; ``no_policy`` says why ``load`` is;
    ``page``: MLflow's address of the experiment, or empty.
    """
    tracking = study.spec.tracking
    where = tracking.uri, study.run_dir, tracking.enabled
    train = f"{python_command()} -m smolvla_core.train {shlex.quote(summary.config)}" if summary.config else ""
    again = f"{python_command()} -m tune.run --resume {shlex.quote(str(study.run_dir))}"
    return {
        "load": _loading_code(summary.checkpoint) if summary.checkpoint else "",
        "train": f"{train}\n{train} --set optim.samples={2 * study.spec.samples}" if train else "",
        "mlflow": viewing_command(*where) or "",
        "page": viewing_page(*where) or "",
        "no_policy": "The policy is written when the search ends."
        if summary.state == "running"
        else f"This folder holds no policy of this trial; write it with: {again}",
    }


def _loading_code(folder: str) -> str:
    """Python that loads a policy and asks it for an action, with the inputs that it takes."""
    lines = [
        "from lerobot.policies.factory import make_pre_post_processors",
        "from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy",
        "",
        f"folder = {folder!r}",
        "policy = SmolVLAPolicy.from_pretrained(folder)",
        "preprocess, postprocess = make_pre_post_processors(policy.config, folder)",
        "observation = {",
    ]
    for key, feature in _inputs(folder).items():
        shape = ", ".join(map(str, feature["shape"]))
        what = "float32 in 0..1" if feature["type"] == "VISUAL" else "float32, as the dataset has it"
        lines.append(f"    {key!r}: {key.rpartition('.')[2]},  # {what}, shape ({shape})")
    return "\n".join([
        *lines,
        '    "task": "the instruction in words",',
        "}",
        acting_code(_card(folder)),
    ])  # fmt: skip


def _card(folder: str) -> dict[str, Any]:
    """What a policy tells of itself; empty where that cannot be read."""
    try:
        with open(f"{folder}/{CARD_FILE}", encoding="utf-8") as file:
            return dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return {}


def _inputs(folder: str) -> dict[str, Any]:
    """The features that a policy takes: name -> ``type`` and ``shape``; empty where that cannot be read."""
    try:
        with open(f"{folder}/config.json", encoding="utf-8") as file:
            features = json.load(file)["input_features"]
    except (OSError, ValueError, KeyError):
        return {}
    return {key: value for key, value in features.items() if {"type", "shape"} <= value.keys()}

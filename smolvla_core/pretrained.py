"""A pretrained policy's folder: its configuration, its weights, and what an export of ours adds.

An export's state projection is folded over the raw state (``checkpoint.export_policy``), so its columns
stand in raw order. The projection as it was trained lies beside it, with the columns it is for: training
goes on from that one. Any other selection would read raw columns as if they were its own.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lerobot.policies  # noqa: F401 - makes the kinds of policies known
from draccus.utils import ParsingError
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from lerobot.configs import PreTrainedConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from smolvla_core.config import TINY, PolicyConfig
from smolvla_core.errors import ConfigError, first_line
from smolvla_core.interface import IMAGE_PREFIX, Interface

SMOLVLA = "smolvla"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
SEEN_FILE = "state_seen.json"
"""Of an export: the state columns that the policy was trained on."""
PROJECTION_FILE = "state_proj.safetensors"
"""Of an export: the state projection over those columns."""
STATE_PROJ = "model.state_proj"
RELATIVE = "relative_actions"
"""In :data:`SEEN_FILE`, where that is so: actions were learned as ways."""


def expected_cameras(config: PolicyConfig) -> tuple[str, ...] | None:
    """Image keys of the pretrained policy in its order; None when the policy is built anew."""
    if config.pretrained == TINY:
        return None
    return tuple(pretrained_config(config.pretrained).image_features)


def pretrained_config(name: str) -> PreTrainedConfig:
    """Lerobot's configuration of a policy folder, or of one on the hub.

    Raises:
        ConfigError: there is none, it cannot be fetched or read, or it is no SmolVLA that sees.
    """
    _refuse_missing_config(name)
    try:
        config = PreTrainedConfig.from_pretrained(name)
    except ParsingError as error:
        raise ConfigError(
            f"policy.pretrained: the {CONFIG_FILE} of {name} is not read by lerobot {version('lerobot')} "
            f"({first_line(error)}); it may be of another release: correct that entry"
        ) from None
    except (OSError, HFValidationError, HfHubHTTPError, ValueError) as error:
        raise ConfigError(
            f"policy.pretrained: {name} is no policy folder and cannot be fetched ({first_line(error)}); "
            "give a folder, a hub id that can be reached, or 'tiny'"
        ) from None
    if config.type != SMOLVLA:
        raise ConfigError(f"policy.pretrained: {name} is a '{config.type}' policy; a 'smolvla' one is needed")
    _refuse_damaged_weights(name)
    if not config.image_features:
        raise ConfigError(f"policy.pretrained: {name} has no camera among its input_features; SmolVLA needs one")
    odd = next((key for key in config.image_features if not key.startswith(IMAGE_PREFIX)), None)
    if odd is not None:
        raise ConfigError(
            f"policy.pretrained: {name} calls a camera '{odd}'; names that begin with '{IMAGE_PREFIX}' are needed, "
            "rename it in its config.json and policy_preprocessor.json"
        )
    return config


def weights_file(name: str) -> Path:
    """Where a policy's weights lie; fetched from the hub where the name is no folder."""
    return _file(name, WEIGHTS_FILE)


def _file(name: str, file: str) -> Path:
    """A file of a policy; fetched from the hub where the name is no folder."""
    if Path(name).is_dir():
        return Path(name) / file
    return Path(hf_hub_download(name, file))  # nosec B615 # safetensors and JSON


def stored_weights(name: str, interface: Interface) -> dict[str, Tensor]:
    """A policy's weights by parameter name, mapped from their file: processes of a machine share the memory.

    An export of ours gives the state projection that it was trained with.

    Raises:
        OSError, SafetensorError: they cannot be read.
    """
    weights = load_file(weights_file(name))
    if trained_on(name, interface) is not None:
        projection = load_file(_file(name, PROJECTION_FILE))
        weights |= {f"{STATE_PROJ}.{key}": value for key, value in projection.items()}
    return weights


def trained_on(name: str, interface: Interface) -> int | None:
    """Columns of the state projection that an export was trained with.

    None where the weights' own projection is the one to take: the policy is no export of ours, or
    the trial reads the raw state as it stands, over which an export is folded.

    Raises:
        ConfigError: it is an export for other state columns than the trial's, or a file of it cannot be read.
    """
    then, now = _seen(name), columns_seen(interface)
    if then is None:
        return None
    if then.get(RELATIVE) != now.get(RELATIVE):
        raise ConfigError(
            f"policy.pretrained: {name} was trained {'with' if then.get(RELATIVE) else 'without'} "
            f"policy.relative_actions; set it to {'true' if then.get(RELATIVE) else 'false'}, or take the policy that "
            "it started from"
        )
    if then == json.loads(json.dumps(now)):
        try:
            with safe_open(_file(name, PROJECTION_FILE), "pt") as tensors:
                return int(tensors.get_slice("weight").get_shape()[1])
        except (OSError, SafetensorError, HfHubHTTPError) as error:
            raise ConfigError(
                f"policy.pretrained: {PROJECTION_FILE} of {name} cannot be read ({first_line(error)}); "
                "fetch the policy again, whole"
            ) from None
    same_raw = then["raw_width"] == now["raw_width"] and not then["features"]
    if same_raw and interface.selection.keeps_everything and not interface.features:
        return None
    raise ConfigError(
        f"policy.pretrained: {name} was trained on other state columns ({_count(then)}) than this trial's "
        f"({_count(now)}); take the state section of its train_config.yaml, or the policy that it started from"
    )


def _seen(name: str) -> dict[str, Any] | None:
    """The state columns that an export of ours was trained on; None of any other policy."""
    try:
        file = _file(name, SEEN_FILE)
        seen: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return seen
    except (FileNotFoundError, EntryNotFoundError):
        return None
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ConfigError(
            f"policy.pretrained: {SEEN_FILE} of {name} cannot be read ({first_line(error)}); fetch the policy again"
        ) from None


def columns_seen(interface: Interface) -> dict[str, Any]:
    """The state columns that a policy is trained on, for :data:`SEEN_FILE`."""
    document = interface.to_dict()
    selection = document["selection"]
    relative = {RELATIVE: True} if interface.relative else {}
    return {
        "columns": selection["columns"],
        "raw_width": selection["raw_width"],
        "features": document["features"],
        **relative,
    }


def _count(seen: dict[str, Any]) -> str:
    engineered = f" and {len(seen['features'])} engineered" if seen["features"] else ""
    return f"{len(seen['columns'])}{engineered} of {seen['raw_width']} state dims"


def _refuse_missing_config(name: str) -> None:
    """Say what a local folder lacks; lerobot would look for it on the hub."""
    file = Path(name) / CONFIG_FILE
    if not Path(name).exists():
        if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise ConfigError(f"policy.pretrained: {name} does not exist; give a policy's folder, a hub id or 'tiny'")
        return
    if not file.is_file():
        raise ConfigError(f"policy.pretrained: {name} is no policy folder: it has no {CONFIG_FILE}; give one that has")
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"policy.pretrained: {file} is damaged; fetch the policy again") from None


def _refuse_damaged_weights(name: str) -> None:
    file = Path(name) / WEIGHTS_FILE
    if not Path(name).is_dir():
        return
    if not file.is_file():
        raise ConfigError(f"policy.pretrained: {name} has no {WEIGHTS_FILE}; fetch the policy again")
    try:
        with safe_open(file, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ConfigError(
            f"policy.pretrained: {file} is damaged ({first_line(error)}); fetch the policy again"
        ) from None

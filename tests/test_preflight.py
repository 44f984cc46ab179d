"""Wrong data and wrong configurations are each one line, with the line of the YAML, before anything starts."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from smolvla_core.config_values import set_dotted
from smolvla_core.errors import UserError
from tests.datasets import write_generic, write_legacy
from tune.preflight import preflight
from tune.spec import load_spec

SPACES = Path(__file__).parents[1] / "search_spaces"
CAMERAS = {
    "camera1": "observation.images.rgb.head",
    "camera2": "observation.images.rgb.left_wrist",
    "camera3": "observation.images.rgb.right_wrist",
}
SEARCH = {
    "weighting.alpha": {"type": "float", "low": 0.0, "high": 2.0},
    "policy.chunk_size": {"type": "categorical", "choices": [30, 50]},
}
FIXED_CHUNK = {"weighting.alpha": SEARCH["weighting.alpha"]}
NO_ALPHA = {"policy.chunk_size": SEARCH["policy.chunk_size"]}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, eggs_root, generic_root) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("datasets")
    from smolvla_core.data.synthetic import write_synthetic

    write_synthetic(folder / "raw", episodes=1, seconds=1.0, size=48, seed=0)
    return {
        "eggs": eggs_root,
        "generic": generic_root,
        "raw": folder / "raw",
        "single": write_generic(folder / "single", episodes=1),
        "legacy": write_legacy(folder / "legacy"),
    }


class Bench:
    """A folder with a search's YAML and a copy of its data, and what preflight says of them."""

    def __init__(self, folder: Path, datasets: dict[str, Path], cache_dir: Path, pretrained: dict[str, Path]):
        self.folder, self.datasets, self.cache_dir = folder, datasets, cache_dir
        self.names = {f"<{name}>": str(path) for name, path in pretrained.items()}
        self.file = folder / "small.yaml"

    def write(self, *, data="eggs", damage=None, trial=None, search=None):
        """The YAML, one key a line; ``damage`` spoils a copy of the data."""
        root = self.datasets[data] if data in self.datasets else self.folder / data
        if damage is not None:
            root = Path(shutil.copytree(root, self.folder / "data"))
            damage(root)
        search = search or SEARCH
        base = {
            "data": {"train": [{"root": str(root)}], "val_fraction": 0.2, "cache_dir": str(self.cache_dir)},
            "state": {"preset": "top32" if data in ("eggs", "raw") else "identity"},
            "policy": {"pretrained": "tiny", "num_steps": 2},
            "optim": {"samples": 96},
            "eval": {"frames": 4, "draws": 1, "horizon_s": 0.5},
        }
        document = {
            "study": "small",
            "trial": set_dotted(base, trial or {}),
            "search": search,
            "budget": {"trials": 4},
            "asha": {"grace_samples": 32},
            "storage": str(self.folder / "runs"),
        }
        text = yaml.safe_dump(document, sort_keys=False, width=1000)
        for name, path in self.names.items():
            text = text.replace(name, path)
        self.file.write_text(text)

    def refusal(self) -> tuple[str, str]:
        """The line of the YAML that the error names, and the error after it. Nothing else changes on disk."""
        before = self._listing()
        with pytest.raises(UserError) as error:
            preflight(*load_spec(self.file))
        assert self._listing() == before
        half_written = [path for path in self.cache_dir.rglob(".*") if path.suffix != ".lock"]
        assert half_written == []
        text = str(error.value)
        assert "\n" not in text
        found = re.fullmatch(rf"{re.escape(str(self.file))}:(\d+): (.+)", text)
        assert found, text
        return self.file.read_text().splitlines()[int(found[1]) - 1].strip(), found[2]

    def _listing(self) -> dict[str, int]:
        homes = [self.folder, *self.datasets.values(), *map(Path, self.names.values())]
        return {str(path): path.stat().st_mtime_ns for home in homes for path in home.rglob("*")}


@pytest.fixture
def bench(tmp_path, datasets, cache_dir, lookalike, policies, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path, datasets, cache_dir, {"lookalike": lookalike, **policies})


@pytest.fixture(scope="module")
def policies(tmp_path_factory, lookalike) -> dict[str, Path]:
    """Folders that are no SmolVLA policy, or not all of one."""
    home = tmp_path_factory.mktemp("policies")
    lost = json.loads((lookalike / "config.json").read_text()) | {"vlm_model_name": "/nowhere/vlm"}
    for name, text in {
        "empty": None,
        "act": json.dumps({"type": "act"}),
        "llama": json.dumps({"model_type": "llama"}),
        "cut": "{",
        "lost_vlm": json.dumps(lost),
        "no_weights": json.dumps(lost),
        "cut_weights": json.dumps(lost),
    }.items():
        (home / name).mkdir()
        if text is not None:
            (home / name / "config.json").write_text(text)
    weights = (lookalike / "model.safetensors").read_bytes()
    (home / "lost_vlm/model.safetensors").write_bytes(weights)
    (home / "cut_weights/model.safetensors").write_bytes(weights[: len(weights) // 2])
    return {path.name: path for path in home.iterdir()}


def info(**changes: Any) -> Callable[[Path], None]:
    """Change ``meta/info.json``; None removes a key."""

    def damage(root: Path) -> None:
        file = root / "meta/info.json"
        document = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))

    return damage


def without_feature(prefix: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        file = root / "meta/info.json"
        document = json.loads(file.read_text())
        document["features"] = {k: v for k, v in document["features"].items() if not k.startswith(prefix)}
        file.write_text(json.dumps(document))

    return damage


def removed(pattern: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        found = sorted(root.glob(pattern))[0]
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return damage


def cut(pattern: str) -> Callable[[Path], None]:
    """Keep half of a file, as an interrupted download does."""

    def damage(root: Path) -> None:
        file = sorted(root.glob(pattern))[0]
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return damage


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_text(text) and None


def table(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Change the first data file."""

    def damage(root: Path) -> None:
        file = sorted((root / "data").rglob("*.parquet"))[0]
        pq.write_table(change(pq.read_table(file)), file)

    return damage


def with_nan(key: str) -> Callable[[Path], None]:
    def change(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index(key)
        values = np.stack(rows[key].to_numpy()).copy()
        values[5, 2] = np.nan
        return rows.set_column(place, rows.schema.field(place), pa.array(list(values), rows.schema.field(place).type))

    return table(change)


def of_task(number: int) -> Callable[[Path], None]:
    def change(rows: pa.Table) -> pa.Table:
        place = rows.schema.get_field_index("task_index")
        return rows.set_column(place, rows.schema.field(place), pa.array([number] * len(rows)))

    return table(change)


def wider_actions(rows: pa.Table) -> pa.Table:
    place = rows.schema.get_field_index("action")
    return rows.set_column(place, "action", pa.array([[0.0] * 40] * len(rows), pa.list_(pa.float32())))


def instruction(text: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        tasks = pq.read_table(root / "meta/tasks.parquet").to_pandas()
        tasks.index = type(tasks.index)([text] * len(tasks), name=tasks.index.name)
        tasks.to_parquet(root / "meta/tasks.parquet")

    return damage


DATA = "- root:"  # the YAML's line with the dataset's folder
FETCH = "fetch the file again"
BROKEN_DATA = {
    "missing": ({"data": "nowhere"}, DATA, "nowhere: no such folder; give the folder of a LeRobot dataset"),
    "not a dataset": ({"data": "."}, DATA, "has no readable meta/info.json; give the folder of a LeRobot dataset"),
    "corrupt info": ({"damage": written("meta/info.json", "{")}, DATA, "has no readable meta/info.json"),
    "info is a list": ({"damage": written("meta/info.json", "[]")}, DATA, "has no readable meta/info.json"),
    "info without fps": ({"damage": info(fps=None)}, DATA, "has no readable meta/info.json"),
    "info without features": ({"damage": info(features=None)}, DATA, "'features'; fetch the dataset again"),
    "raw BEHAVIOR": ({"data": "raw"}, "train:", "run: python -m smolvla_core.data.behavior"),
    "an old version": ({"damage": info(codebase_version="v2.0")}, "train:", "Convert the dataset with lerobot first"),
    "a future version": (
        {"damage": info(codebase_version="v9.0")},
        "train:",
        "LeRobot version 'v9.0' is not supported",
    ),
    "no version": ({"damage": info(codebase_version=None)}, "train:", "v2.1 and v3.0 are"),
    "promised frames": ({"damage": info(total_frames=7)}, DATA, "info.json promises 7 frames, data/ holds "),
    "no tasks": ({"damage": removed("meta/tasks.parquet")}, DATA, "'meta/tasks.parquet' is missing; the dataset is"),
    "no episodes": (
        {"damage": removed("meta/episodes/*/*.parquet")},
        DATA,
        "'meta/episodes' is missing; the dataset is",
    ),
    "no data": ({"damage": removed("data")}, DATA, "'data' is missing; the dataset is incomplete"),
    "a data file": ({"damage": removed("data/*/file-000.parquet")}, DATA, "fetch the dataset again"),
    "cut data": ({"damage": cut("data/*/*.parquet")}, DATA, FETCH),
    "cut tasks": ({"damage": cut("meta/tasks.parquet")}, DATA, FETCH),
    "cut episodes": ({"damage": cut("meta/episodes/*/*.parquet")}, DATA, FETCH),
    "empty data": ({"damage": lambda root: sorted(root.glob("data/*/*"))[0].write_bytes(b"")}, DATA, FETCH),
    "cut statistics": ({"damage": cut("meta/stats.json")}, DATA, "fetch the dataset again"),
    "no state column": (
        {"damage": table(lambda rows: rows.drop_columns(["observation.state"]))},
        DATA,
        "file-000.parquet: has no column 'observation.state'; convert the dataset again",
    ),
    "no task column": (
        {"damage": table(lambda rows: rows.drop_columns(["task_index"]))},
        DATA,
        "has no column 'task_index'; convert the dataset again",
    ),
    "types that differ": ({"damage": table(wider_actions)}, DATA, "the same column with different types; convert"),
    "no state feature": ({"damage": without_feature("observation.state")}, DATA, "has no 'observation.state'; it has"),
    "no action feature": ({"damage": without_feature("action")}, DATA, "the dataset has no 'action'; it has"),
    "no camera": ({"damage": without_feature("observation.images")}, DATA, "has no camera; SmolVLA needs at least one"),
    "an unknown task": (
        {"damage": of_task(99)},
        DATA,
        "frames are of task 99, which meta/tasks.parquet does not list; fetch the dataset again",
    ),
    "no instruction": (
        {"damage": instruction(" ")},
        DATA,
        "episode 0 has no instruction; add it to meta/tasks.parquet",
    ),
    "missing video": ({"damage": removed("videos/*/*/*.mp4")}, DATA, "is missing; fetch the dataset again"),
    "cut video": ({"damage": cut("videos/*left_wrist*/*/*.mp4")}, DATA, "cannot be decoded"),
    "NaN in the state": (
        {"damage": with_nan("observation.state")},
        DATA,
        "'observation.state' dim 2 is nan at episode 0, frame 5 (1 such values); repair or remove those episodes",
    ),
    "NaN in the action": ({"damage": with_nan("action")}, DATA, "'action' dim 2 is nan at episode 0, frame 5"),
    "a lost annotation": ({"damage": removed("annotations")}, DATA, "the annotation is missing; download or import"),
    "a damaged map": (
        {"damage": written("meta/behavior_episodes.jsonl", "{\n")},
        DATA,
        "meta/behavior_episodes.jsonl: line 1 is damaged; import the dataset again",
    ),
    "a v2.1 dataset that is damaged": (
        {"data": "legacy", "damage": cut("data/*/*.parquet"), "trial": {"policy.chunk_size": 8}, "search": FIXED_CHUNK},
        "train:",
        "the dataset is incomplete, damaged or numbered with gaps; fetch it anew",
    ),
    "one episode": (
        {"data": "single"},
        "data:",
        "1 episode cannot be split into training, validation and test; record",
    ),
    "one episode, no test": (
        {"data": "single", "trial": {"data.test_fraction": 0.0}},
        "data:",
        "trial.data: 1 episode cannot be split into training and validation; record more",
    ),
    "nothing left to train on": (
        {"trial": {"data.val_fraction": 0.5, "data.test_fraction": 0.45}},
        "data:",
        "6 episodes cannot be split into training, validation and test; lower data.val_fraction or data.test_fraction",
    ),
}

PRETRAINED = {"policy.pretrained": "<lookalike>", "data.cameras": CAMERAS}
WRONG_CONFIGURATION = {
    "a camera with a typo": (
        {"trial": {"data.cameras": {"front": "observation.images.rgb.haed"}}},
        "cameras:",
        "trial.data.cameras: the dataset has no 'observation.images.rgb.haed'; did you mean 'observation.images",
    ),
    "a camera of another robot": (
        {"trial": {"data.cameras": {"front": "zenith"}}},
        "cameras:",
        "the dataset has no 'zenith'; valid here: observation.images.rgb.head, observation.images.rgb.left_wrist",
    ),
    "a camera for two": (
        {"trial": {"data.cameras": {"a": CAMERAS["camera1"], "b": CAMERAS["camera1"]}}},
        "cameras:",
        "two policy cameras name the same dataset key; give each its own",
    ),
    "cameras not mapped": (
        {"trial": {"policy.pretrained": "<lookalike>"}},
        "data:",
        "trial.data.cameras: the pretrained policy expects camera1, camera2, camera3, the dataset has "
        "observation.images.rgb.head, observation.images.rgb.left_wrist, observation.images.rgb.right_wrist; map them, "
        "e.g. data.cameras: {'camera1': 'observation.images.rgb.head'",
    ),
    "a camera the policy lacks": (
        {"trial": {**PRETRAINED, "data.cameras": {**CAMERAS, "camera9": CAMERAS["camera1"]}}},
        "cameras:",
        "trial.data.cameras: the policy has no camera 'camera9'; did you mean 'camera",
    ),
    "a preset of another robot": (
        {"data": "generic", "trial": {"state.preset": "top32"}},
        "preset:",
        "state.preset 'top32' needs an R1Pro state of 256 (2025) or 61 (2026) dims, the dataset's robot_type is "
        "'generic' and its state has 10; set state.preset to identity or give state.indices",
    ),
    "a searched preset": (
        {"data": "generic", "search": {"state.preset": {"type": "categorical", "choices": ["identity", "top32"]}}},
        "state.preset:",
        "state.preset 'top32' needs an R1Pro state",
    ),
    "keys of another robot": (
        {"data": "generic", "trial": {"state": {"keys": ["base_qvel"]}}},
        "keys:",
        "state.keys needs an R1Pro state",
    ),
    "a key with a typo": (
        {"trial": {"state": {"keys": ["base_qvle"]}}},
        "keys:",
        "trial.state.keys: release 2025 has no 'base_qvle'; did you mean 'base_qvel'?",
    ),
    "too many dims": (
        {"trial": {"state.preset": "standard217", "policy.max_state_dim": 32}},
        "max_state_dim: 32",
        "trial.policy.max_state_dim: 217 dims are selected, policy.max_state_dim is 32; choose fewer dims,",
    ),
    "a forbidden dim": (
        {"trial": {"state": {"indices": [158, 140]}}},
        "state:",
        "trial.state: dim 140 ('robot_pos') is forbidden in the standard track; choose other dims or set",
    ),
    "forbidden keys": (
        {"trial": {"state": {"keys": ["robot_pos"]}}},
        "state:",
        "dim 140 ('robot_pos') and 2 more are forbidden in the standard track",
    ),
    "a dim past the end": (
        {"trial": {"state": {"indices": [0, 300]}}},
        "indices:",
        "trial.state.indices: 300 is outside the raw state's 0..255; give dims within it",
    ),
    "a dim before the start": (
        {"trial": {"state": {"indices": [-1]}}},
        "indices:",
        "-1 is outside the raw state's 0..255",
    ),
    "a long instruction": (
        {"damage": instruction("put the egg on the lawn next to the tree " * 30)},
        "policy:",
        "policy.tokenizer_max_length is 64, the instruction has ",
    ),
    "a short tokenizer": (
        {"trial": {"policy.tokenizer_max_length": 8}},
        "tokenizer_max_length:",
        "tokens and would be cut; set it to at least ",
    ),
    "a searched tokenizer": (
        {"search": {"policy.tokenizer_max_length": {"type": "categorical", "choices": [64, 8]}}},
        "policy.tokenizer_max_length:",
        "policy.tokenizer_max_length is 8, the instruction has ",
    ),
    "no such policy": (
        {"trial": {"policy.pretrained": "/nowhere/policy"}},
        "pretrained:",
        "trial.policy.pretrained: /nowhere/policy does not exist; give a policy's folder, a hub id or 'tiny'",
    ),
    "a hub id that is not reached": (
        {"trial": {"policy.pretrained": "somebody/smolvla_eggs"}},
        "pretrained:",
        "trial.policy.pretrained: somebody/smolvla_eggs ",
    ),
    "an empty folder": (
        {"trial": {"policy.pretrained": "<empty>"}},
        "pretrained:",
        "is no policy folder: it has no config.json; give one that has",
    ),
    "a policy that was cut": (
        {"trial": {"policy.pretrained": "<cut>"}},
        "pretrained:",
        "config.json is damaged; fetch the policy again",
    ),
    "a policy without weights": (
        {"trial": {"policy.pretrained": "<no_weights>"}},
        "pretrained:",
        "has no model.safetensors; fetch the policy again",
    ),
    "weights that were cut": (
        {"trial": {"policy.pretrained": "<cut_weights>"}},
        "pretrained:",
        "model.safetensors is damaged (",
    ),
    "a language model": ({"trial": {"policy.pretrained": "<llama>"}}, "pretrained:", "trial.policy.pretrained: "),
    "another policy": (
        {"trial": {"policy.pretrained": "<act>"}},
        "pretrained:",
        "is a 'act' policy; a 'smolvla' one is needed",
    ),
    "a policy whose VLM is lost": (
        {"trial": {**PRETRAINED, "policy.pretrained": "<lost_vlm>"}},
        "pretrained:",
        "the tokenizer of its VLM, /nowhere/vlm, cannot be fetched",
    ),
    "a horizon past the shortest chunk": (
        {"trial": {"eval.horizon_s": 1.5}},
        "horizon_s:",
        "the shortest policy.chunk_size (30); set eval.horizon_s to at most 1",
    ),
    "a chunk before the horizon": (
        {"trial": {"policy.chunk_size": 10}, "search": FIXED_CHUNK},
        "horizon_s:",
        "the shortest policy.chunk_size (10); set eval.horizon_s to at most 0.333",
    ),
    "no annotations to weight by": (
        {"data": "generic", "trial": {"weighting.scheme": "annotation"}, "search": NO_ALPHA},
        "scheme:",
        "trial.weighting.scheme: this dataset has no pick or place annotations; choose another scheme",
    ),
    "a searched scheme without annotations": (
        {
            "data": "generic",
            "search": {"weighting.scheme": {"type": "categorical", "choices": ["temporal", "annotation"]}},
        },
        "weighting.scheme:",
        "search.weighting.scheme: this dataset has no pick or place annotations",
    ),
    "no annotations to score by": (
        {"data": "generic", "trial": {"eval.critical": "annotation"}},
        "critical:",
        "trial.eval.critical: this dataset has nothing for the rule 'annotation'; set auto",
    ),
    "no gripper to score by": (
        {"data": "generic", "trial": {"eval.critical": "gripper"}},
        "critical:",
        "this dataset has nothing for the rule 'gripper'; set auto",
    ),
    "nothing critical": (
        {"data": "generic", "trial": {"eval.critical": "progress", "eval.critical_progress": 0.999}},
        "critical:",
        "no validation frame is critical by the rule 'progress'; lower eval.critical_progress",
    ),
    "no gripper to segment by": (
        {"data": "generic", "trial": {"weighting.scheme": "segment"}, "search": NO_ALPHA},
        "scheme:",
        "trial.weighting.scheme: 'segment' needs a gripper, and none is known in this dataset; set data.gripper_dims",
    ),
    "no gripper moves so far": (
        {"trial": {"weighting": {"scheme": "segment", "segment": {"threshold_m": 9.0}}}, "search": NO_ALPHA},
        "threshold_m:",
        "weighting.segment.threshold_m is 9, no gripper moves that much within 0.5 s",
    ),
    "gripper dims past the end": (
        {"data": "generic", "trial": {"data.gripper_dims": [4, 99]}},
        "gripper_dims:",
        "trial.data.gripper_dims: [4, 99] leave the state's 0..9; give raw state dims within it",
    ),
    "gripper dims that nothing uses": (
        {"data": "generic", "trial": {"data.gripper_dims": [-1], "eval.critical": "progress"}},
        "gripper_dims:",
        "trial.data.gripper_dims: [-1] leave the state's 0..9",
    ),
    "jitter of an unknown robot": (
        {"data": "generic", "trial": {"augment.gripper_jitter_m": 0.01}},
        "gripper_jitter_m:",
        "needs R1Pro's named state to find the end-effector positions; set it to 0",
    ),
    "searched jitter": (
        {"data": "generic", "search": {"augment.gripper_jitter_m": {"type": "float", "low": 0.0, "high": 0.02}}},
        "augment.gripper_jitter_m:",
        "search.augment.gripper_jitter_m: needs R1Pro's named state",
    ),
    "jitter of dims that are not seen": (
        {"trial": {"augment.gripper_jitter_m": 0.01, "state": {"keys": ["arm_left_qpos"]}}},
        "gripper_jitter_m:",
        "the selected state has no end-effector position, so it would do nothing; set it to 0 or add eef_left_pos",
    ),
    "a curriculum past every frame": (
        {"trial": {"curriculum": {"scheme": "second_half", "start": 0.9999}}},
        "start:",
        "curriculum.start is 0.9999, no training frame has such progress; lower it",
    ),
    "a searched curriculum": (
        {
            "trial": {"curriculum": {"scheme": "second_half"}},
            "search": {"curriculum.start": {"type": "float", "low": 0.5, "high": 0.9999}},
        },
        "curriculum.start:",
        "curriculum.start is 0.9999, no training frame",
    ),
    "a cache that is a file": (
        {"trial": {"data.cache_dir": "/dev/null"}},
        "cache_dir:",
        "trial.data.cache_dir: /dev/null cannot be made (File exists); set it to a folder that can be written to",
    ),
}


@pytest.mark.parametrize("case", [*BROKEN_DATA, *WRONG_CONFIGURATION])
def test_a_mistake_is_one_line_with_its_place_in_the_yaml_and_leaves_nothing(bench, case, caplog):
    inputs, place, words = (BROKEN_DATA | WRONG_CONFIGURATION)[case]
    bench.write(**inputs)
    with caplog.at_level(logging.DEBUG):
        line, message = bench.refusal()
    assert line.startswith(place), f"{line!r} for {message!r}"
    assert words in message
    # what libraries log would stand beside the one line
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert logging.root.manager.disable == logging.NOTSET


def test_a_mistake_that_set_brought_names_set(bench):
    bench.write()
    with pytest.raises(UserError) as error:
        preflight(*load_spec(bench.file, ["data.cameras={front: zenith}"]))
    assert str(error.value).startswith("--set: trial.data.cameras: the dataset has no 'zenith'; valid here:")
    with pytest.raises(UserError) as error:
        preflight(*load_spec(bench.file, ["policy.tokenizer_max_length=8"]))
    assert str(error.value).startswith("--set: policy.tokenizer_max_length is 8, the instruction has ")


def test_without_its_yaml_the_mistake_is_still_told(bench):
    bench.write(trial={"data.cameras": {"front": "zenith"}})
    with pytest.raises(UserError, match=r"^data\.cameras: the dataset has no 'zenith'"):
        preflight(load_spec(bench.file)[0])


def test_what_is_sound_is_described(bench):
    bench.write()
    facts = preflight(*load_spec(bench.file))
    assert facts.dataset["root"] == str(bench.datasets["eggs"])
    assert facts.dataset["episodes"] == 6
    assert facts.objective["critical_rule"] == "annotation"
    assert (facts.objective["critical_frames"], facts.objective["draws"], facts.objective["horizon_s"]) == (4, 1, 0.5)
    parts = [facts.objective[f"{part}_episodes"] for part in ("train", "val", "test")]
    assert parts == [4, 1, 1]
    assert facts.cache.kind == "embeddings"
    assert facts.cache.folder == str(bench.cache_dir / "features")


def test_finalists_need_test_episodes_that_can_be_scored(bench):
    bench.write()
    with pytest.raises(UserError, match=r"--set: finalists: would be compared on 1 test episode, from which no interv"):
        preflight(*load_spec(bench.file, ["finalists={k: 1}"]))
    facts = preflight(*load_spec(bench.file, ["finalists={k: 1}", "data.test_fraction=0.4"]))
    assert facts.objective["test_episodes"] == 2


def test_a_v21_dataset_is_converted_once_and_then_sound(bench):
    bench.write(data="legacy", trial={"policy.chunk_size": 8}, search=FIXED_CHUNK)
    before = bench._listing()
    facts = preflight(*load_spec(bench.file))
    assert facts.dataset["episodes"] == 4
    assert facts.dataset["root"].startswith(str(bench.cache_dir))
    assert bench._listing() == before


def test_no_weights_are_read(bench, monkeypatch):
    """The real policy has 450 million; every branch would load them."""
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    monkeypatch.setattr(SmolVLAPolicy, "__init__", lambda *a, **k: pytest.fail("the policy was built"))
    bench.write(trial=PRETRAINED)
    preflight(*load_spec(bench.file))


def test_the_real_search_is_sound_on_the_imported_layout(bench, lookalike, monkeypatch, cache_dir):
    monkeypatch.setenv("EGGS_DATA", str(bench.datasets["eggs"]))
    spec, source = load_spec(
        SPACES / "easter_eggs.yaml",
        [f"policy.pretrained={lookalike}", f"data.cache_dir={cache_dir}", "data.test_fraction=0.3"],
    )
    facts = preflight(spec, source)
    assert facts.objective["critical_rule"] == "annotation"
    assert facts.objective["horizon_s"] == 1.0
    assert facts.dataset["fps"] == 30

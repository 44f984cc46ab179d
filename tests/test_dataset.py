"""Reading datasets: splits by episode, statistics without a leak, damage refused."""

import hashlib
import json
import re
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.utils import BackwardCompatibilityError
from packaging.version import Version

from smolvla_core.config import DataConfig
from smolvla_core.data.audit import audit
from smolvla_core.data.dataset import Moments, _open, fingerprint, open_dataset, split_episodes
from smolvla_core.data.pictures import Camera
from smolvla_core.data.reading import matrix
from smolvla_core.errors import ConfigError, DataError
from smolvla_core.train import main
from smolvla_core.trial import prepare, resolve
from tests.core_fixtures import tiny_trial
from tests.datasets import write_generic


def config(root, cache_dir, **values):
    return DataConfig(train=({"root": str(root)},), cache_dir=str(cache_dir), **values)


@pytest.fixture
def damaged(generic_root, tmp_path):
    return shutil.copytree(generic_root, tmp_path / "damaged")


def test_columns_of_a_generic_dataset(generic_root, cache_dir):
    dataset = open_dataset(config(generic_root, cache_dir))
    assert dataset.state.shape == (144, 10)
    assert dataset.action.shape == (144, 4)
    assert dataset.lengths.tolist() == [24] * 6
    assert dataset.frame[24:27].tolist() == [0, 1, 2]
    assert dataset.progress[12] == pytest.approx(0.5)
    assert dataset.progress.max() < 1


def test_split_is_by_episode_seeded_and_disjoint(generic_root, cache_dir):
    data = config(generic_root, cache_dir, val_fraction=0.2, test_fraction=0.2)
    split = split_episodes(data, 10)
    assert [len(part) for part in (split.train, split.val, split.test)] == [6, 2, 2]
    assert sorted(split.train + split.val + split.test) == list(range(10))
    assert split == split_episodes(data, 10)
    assert split != split_episodes(data.model_copy(update={"split_seed": 1}), 10)


def test_too_few_episodes_to_split(generic_root, cache_dir):
    with pytest.raises(DataError, match="2 episode"):
        split_episodes(config(generic_root, cache_dir), 2)
    assert split_episodes(config(generic_root, cache_dir, test_fraction=0.0), 2).test == ()


def test_moments_by_hand():
    moments = Moments.of(np.array([[1.0, 5.0], [3.0, 5.0]], dtype=np.float32))
    assert moments.mean.tolist() == [2.0, 5.0]
    assert moments.std.tolist() == [1.0, 1.0]  # a constant dim is shifted, not scaled
    assert moments.take((1,)).max.tolist() == [5.0]


def test_chunks_stop_at_the_episode(generic_root, cache_dir):
    dataset = open_dataset(config(generic_root, cache_dir))
    rows, is_pad = dataset.chunk_rows(np.array([20, 22]), 4)
    assert rows.tolist() == [[20, 21, 22, 23], [22, 23, 23, 23]]
    assert is_pad.tolist() == [[False] * 4, [False, False, True, True]]


def test_pictures_are_the_recorded_ones(generic_root, cache_dir):
    camera = Camera(open_dataset(config(generic_root, cache_dir)), "observation.images.top")
    frames = camera.frames(np.array([12, 0, 12]))
    assert frames.shape == (3, 3, 48, 64)
    assert frames[1].float().mean() == 255
    assert frames[0].float().mean() == int(255 * 0.5)
    assert frames[0].equal(frames[2])


def test_pictures_of_one_task_are_of_its_episodes(tmp_path, cache_dir):
    root = write_generic(tmp_path / "two", instruction=lambda episode, step: f"task {episode % 2}")
    whole = open_dataset(config(root, cache_dir))
    odd = open_dataset(DataConfig(train=({"root": str(root), "task": 1},), cache_dir=str(cache_dir)))
    assert odd.recorded.tolist() == [1, 3, 5]
    rows = np.array([0, 25, 71])
    there = whole.rows_of((1, 3, 5))[rows]
    assert odd.state[rows].tolist() == whole.state[there].tolist()
    key = "observation.images.wrist"
    assert Camera(odd, key).frames(rows).equal(Camera(whole, key).frames(there))


def test_an_instruction_may_change_within_an_episode(tmp_path, cache_dir):
    root = write_generic(tmp_path / "both", instruction=lambda episode, step: "pick" if step < 10 else "place")
    trial = prepare(tiny_trial(root, cache_dir))
    assert trial.dataset.instructions == ("pick", "place")
    rows = np.array([0, 9, 10, 23])
    batch = trial.maker.validation(rows, *(np.zeros((4, *shape), np.float32) for shape in ((8, 32), ())))
    assert batch.tasks == ("pick", "pick", "place", "place")
    assert trial.learner.interface.instructions == ("place", "pick")  # of most frames first


def test_tasks_are_known_where_frames_alone_name_them_and_their_texts_are_a_column(tmp_path, cache_dir):
    """As in lerobot/libero; and as other programs write meta/tasks.parquet."""
    root = write_generic(tmp_path / "two", instruction=lambda episode, step: f"task {episode % 2}")
    (file,) = (root / "meta" / "episodes").rglob("*.parquet")
    pq.write_table(pq.read_table(file).drop_columns("tasks"), file)
    for column in (False, True):
        if column:
            texts = root / "meta" / "tasks.parquet"
            pd.read_parquet(texts).reset_index().to_parquet(texts, index=False)
            _open.cache_clear()
        assert open_dataset(config(root, cache_dir)).instructions == ("task 0", "task 1")
        odd = open_dataset(DataConfig(train=({"root": str(root), "task": 1},), cache_dir=str(cache_dir)))
        assert (odd.recorded.tolist(), odd.instructions) == ([1, 3, 5], ("task 1",))
        (said,) = audit(root).of("instructions")
        assert (said.verdict, said.found) == ("ok", "2, the longest of 2 words")


def test_an_instruction_of_held_out_episodes_is_not_cut_either(tmp_path, cache_dir):
    (held_out,) = split_episodes(config(tmp_path, cache_dir), 6).val
    long = "go on " * 40
    root = write_generic(tmp_path / "long", instruction=lambda episode, step: long if episode == held_out else "pick")
    with pytest.raises(ConfigError, match="would be cut"):
        resolve(tiny_trial(root, cache_dir))


def test_a_rate_that_is_no_whole_number_is_refused(damaged, cache_dir):
    info = json.loads((damaged / "meta/info.json").read_text())
    (damaged / "meta/info.json").write_text(json.dumps(info | {"fps": 29.97}))
    with pytest.raises(DataError, match="'fps' is 29.97; only whole numbers"):
        open_dataset(config(damaged, cache_dir))


def test_an_old_format_on_the_hub_is_refused_with_the_way_out(cache_dir, monkeypatch):
    def refuse(repo_id):
        raise BackwardCompatibilityError(repo_id, Version("2.1"))

    monkeypatch.setattr("smolvla_core.data.reading.LeRobotDataset", refuse)
    with pytest.raises(DataError, match="hf download --repo-type dataset me/old --local-dir FOLDER"):
        open_dataset(DataConfig(train=({"repo_id": "me/old"},), cache_dir=str(cache_dir)))


def test_fingerprint_follows_the_data(generic_root, cache_dir, damaged):
    first = fingerprint(config(generic_root, cache_dir))
    assert (first["episodes"], first["frames"], first["fps"]) == (6, 144, 10)
    info = damaged / "meta" / "info.json"
    info.write_text(info.read_text().replace('"generic"', '"other"'))
    assert fingerprint(config(damaged, cache_dir))["digest"] != first["digest"]


def rewrite(root, column, change):
    (file,) = (root / "data").rglob("*.parquet")
    table = pq.read_table(file)
    rows = table[column].to_pylist()
    change(rows)
    array = pa.array(rows, type=table.schema.field(column).type)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, array), file)


def test_nan_is_located(damaged, cache_dir):
    def poison(rows):
        rows[30][3] = float("nan")

    rewrite(damaged, "observation.state", poison)
    with pytest.raises(DataError, match=r"'observation.state' dim 3 is nan at episode 1, frame 6"):
        open_dataset(config(damaged, cache_dir))


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11, 12]], pa.list_(pa.float32()), "same width in every row"),
        ([], pa.list_(pa.float32()), "same width in every row"),
        ([[[1, 2]], [[3, 4]]], pa.list_(pa.list_(pa.float32())), "not a row of numbers a frame"),
        (["left", "right"], pa.string(), "holds string, not a row of numbers a frame"),
    ],
)
def test_a_column_that_is_no_table_is_refused(tmp_path, values, kind, words):
    with pytest.raises(DataError, match=words):
        matrix(pa.table({"action": pa.array(values, type=kind)}), "action", tmp_path)


def test_columns_are_tables_however_they_are_stored(tmp_path):
    rows = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    for kind in (pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 3)):
        table = pa.table({"action": pa.array([[9.0] * 3, *rows], type=kind)}).slice(1)
        np.testing.assert_array_equal(matrix(table, "action", tmp_path), rows)
    np.testing.assert_array_equal(matrix(pa.table({"action": [1, 2]}), "action", tmp_path), [[1], [2]])


def truncate_parquet(root):
    (file,) = (root / "data").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:1000])


def break_json(root):
    (root / "meta" / "info.json").write_text("{")


def old_version(root):
    info = json.loads((root / "meta" / "info.json").read_text())
    (root / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v1.6"}))


def raw_behavior(root):
    info = json.loads((root / "meta" / "info.json").read_text())
    (root / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))


def features(change):
    def damage(root):
        info = json.loads((root / "meta" / "info.json").read_text())
        info["features"] = change(info["features"])
        (root / "meta" / "info.json").write_text(json.dumps(info))

    return damage


def cut_episodes(root):
    (file,) = (root / "meta" / "episodes").rglob("*.parquet")
    pq.write_table(pq.read_table(file).slice(0, 4), file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_parquet, "cannot be read"),
        (break_json, "not valid JSON"),
        (old_version, "LeRobot version 'v1.6' is not supported"),
        (raw_behavior, "python -m smolvla_core.data.behavior"),
        (lambda root: (root / "meta" / "info.json").unlink(), "holds no meta/info.json"),
        (lambda root: shutil.rmtree(root / "data"), "'data' is missing"),
        (cut_episodes, "info.json promises 6 episodes, meta/episodes lists 4"),
        (features(lambda known: [*known]), "meta: cannot be read"),
        (features(lambda known: known | {"action": {"shape": [4]}}), "the feature 'action' needs a 'dtype';"),
        (
            features(lambda known: known | {"observation.images.top": {"dtype": "image", "shape": [48]}}),
            "'observation.images.top' needs a 'dtype', and a 'shape' of height, width and channels",
        ),
        (lambda root: (root / "meta" / "tasks.parquet").unlink(), "'meta/tasks.parquet' is missing"),
    ],
)
def test_damage_is_one_line(damaged, cache_dir, damage, message):
    damage(damaged)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(config(damaged, cache_dir))
    assert "\n" not in str(caught.value)


def tree_digest(root):
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*")):
        digest.update(str(file.relative_to(root)).encode())
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_path": "../{chunk_index}/{file_index}.parquet"}, "a path must stay inside the dataset's folder"),
        ({"data_path": "/etc/{chunk_index}/{file_index}"}, "a path must stay inside the dataset's folder"),
        ({"video_path": "videos/{video_key}/../../../x.mp4"}, "a path must stay inside the dataset's folder"),
        ({"video_path": "{video_key.__class__}.mp4"}, "has the placeholder 'video_key.__class__:'"),
    ],
)
def test_metadata_that_leads_out_of_the_dataset_is_refused(damaged, cache_dir, change, words):
    file = damaged / "meta" / "info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match="info.json") as caught:
        open_dataset(config(damaged, cache_dir))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_camera_that_is_named_by_a_path_is_refused(damaged, cache_dir):
    file = damaged / "meta" / "info.json"
    file.write_text(file.read_text().replace("observation.images.top", "observation.images/../../../top"))
    with pytest.raises(DataError, match=r"the feature 'observation.images/../../../top' names a path"):
        open_dataset(config(damaged, cache_dir))


def test_a_picture_outside_the_dataset_is_not_read(damaged, cache_dir, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"no picture of this dataset")

    def elsewhere(rows):
        rows[5] = {"bytes": None, "path": "../secret.png"}

    rewrite(damaged, "observation.images.top", elsewhere)
    camera = Camera(open_dataset(config(damaged, cache_dir)), "observation.images.top")
    with pytest.raises(
        DataError, match=r"frame 5 of episode 0 .* cannot be read \('../secret.png' leaves the dataset\)"
    ):
        camera.frames(np.array([5]))


def test_a_frame_that_was_damaged_since_the_start_ends_a_training_in_one_line(eggs_root, cache_dir, tmp_path, capfd):
    """Only what decodes it notices; the decoder's own words stay inside the line."""
    root = shutil.copytree(eggs_root, tmp_path / "spoilt")
    trial = tiny_trial(root, cache_dir, state__preset="top32", policy__chunk_size=30, optim__samples=400)
    (tmp_path / "trial.yaml").write_text(trial.to_yaml())
    for file in (root / "videos").rglob("*head*/*/*.mp4"):
        content = bytearray(file.read_bytes())
        start = content.find(b"mdat") + 8
        middle = start + (len(content) - start) // 3
        content[middle : middle + 3000] = bytes(3000)
        file.write_bytes(content)
    assert main([str(tmp_path / "trial.yaml"), "--out", str(tmp_path / "out")]) == 2
    told = capfd.readouterr().err
    assert re.fullmatch(
        r"error: \S+\.mp4: frame \d+ of episode \d+ cannot be decoded "
        r"\(Could not push packet to decoder: Invalid data found when processing input\); fetch the video again",
        told.splitlines()[-1],
    ), told
    assert not [word for word in ("torchcodec", ".cpp", "[hevc", "Traceback") if word in told], told

"""Skill annotations: which frames belong to which skill, in BEHAVIOR's own form and its variants."""

import json

import pytest

from smolvla_core.data.annotations import (
    SkillSpan,
    load_annotations,
    manipulation_spans,
    read_annotation,
    skill_spans,
)
from smolvla_core.errors import DataError


def annotation(*skills):
    return {"skill_annotation": [{"skill_description": text, "frame_duration": frames} for text, frames in skills]}


def write_map(root, *rows):
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta/behavior_episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_spans_are_sorted_and_clamped_to_the_episode():
    spans = skill_spans(annotation((["place on next to"], [80, 130]), (["move to"], [-5, 40])), length=100)
    assert spans == [SkillSpan("move to", 0, 40), SkillSpan("place on next to", 80, 100)]
    assert skill_spans(annotation((["move to"], [100, 130]), (["move to"], [50, 50])), length=100) == []


def test_a_skill_in_several_parts_gives_several_spans():
    spans = skill_spans(annotation((["pick up from"], [[10, 20], [30, 40]])), length=100)
    assert spans == [SkillSpan("pick up from", 10, 20), SkillSpan("pick up from", 30, 40)]


def test_descriptions_may_be_nested_or_plain():
    spans = skill_spans(annotation(("move to", [0, 1]), ([["pick up"], ["hold"]], [1, 2])), length=9)
    assert [span.skill for span in spans] == ["move to", "pick up, hold"]


def test_manipulations_are_picks_and_places():
    names = ["move to", "pick up from", "Place on next to", "pick up", "move to, place in", "open door", "replace"]
    spans = [SkillSpan(name, 0, 1) for name in names]
    assert [span.skill for span in manipulation_spans(spans)] == [
        "pick up from",
        "Place on next to",
        "pick up",
        "move to, place in",
    ]


def test_a_dataset_without_annotations_has_none(tmp_path):
    assert load_annotations(tmp_path) is None
    write_map(tmp_path, {"episode_index": 0, "length": 9, "annotation": None})
    assert load_annotations(tmp_path) is None


def test_annotations_by_the_dataset_s_own_numbers(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(annotation((["move to"], [0, 50]))))
    write_map(
        tmp_path,
        {"episode_index": 0, "length": 9, "annotation": None},
        {"episode_index": 1, "length": 20, "annotation": "a.json"},
    )
    assert load_annotations(tmp_path) == {1: [SkillSpan("move to", 0, 20)]}


@pytest.mark.parametrize(
    "row",
    [
        "{",
        "[]",
        '{"episode_index": 0, "length": 9}',
        '{"episode_index": 0, "length": 1e999, "annotation": "a.json"}',
        '{"episode_index": 0, "length": 9, "annotation": 7}',
        '{"episode_index": 0, "length": 9, "annotation": "../a.json"}',
        '{"episode_index": 0, "length": 9, "annotation": "/etc/passwd"}',
    ],
)
def test_a_damaged_map_is_one_line(tmp_path, row):
    root = tmp_path / "dataset"
    (tmp_path / "a.json").write_text(json.dumps(annotation()))
    write_map(root, {"episode_index": 1, "length": 9, "annotation": None})
    with open(root / "meta/behavior_episodes.jsonl", "a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match=r"behavior_episodes.jsonl: line 2 is damaged; import the dataset again$"):
        load_annotations(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[1]", "not a BEHAVIOR annotation"),
        ("{}", "lacks 'skill_annotation'"),
        (json.dumps(annotation((["move to"], [1]))), "holds no .start, stop. pairs"),
        (json.dumps(annotation((["move to"], None))), "not a BEHAVIOR annotation"),
        (json.dumps(annotation((["move to"], [0, float("nan")]))), "not a BEHAVIOR annotation"),
        (json.dumps(annotation((["move to"], [0, float("inf")]))), "not a BEHAVIOR annotation"),
        (json.dumps(annotation((7, [0, 1]))), "not a BEHAVIOR annotation"),
    ],
)
def test_a_damaged_annotation_is_one_line(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_annotation(tmp_path / "a.json", 100)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="the annotation is missing"):
        read_annotation(tmp_path / "b.json", 100)

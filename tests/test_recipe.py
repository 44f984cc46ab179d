"""docs/recipe.md is what the code says, and what it points at exists."""

import re
from pathlib import Path

import pytest

from smolvla_core.config import TrialConfig, dotted_keys
from smolvla_core.recipe import PARTS, default_of, keys_of, leaves, range_of, table

REPOSITORY = Path(__file__).parents[1]


def test_the_page_is_up_to_date():
    page = (REPOSITORY / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == table(), "run: python -m smolvla_core.recipe > docs/recipe.md"


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.title)
def test_code_and_tests_exist(part):
    for name in part.code:
        assert (REPOSITORY / "smolvla_core" / name).is_file()
    for test in part.tests:
        file, _, function = test.partition("::")
        assert re.search(rf"^def {function}\(", (REPOSITORY / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_parameter_of_the_recipes_sections_is_listed_once():
    listed = [key for part in PARTS for key in keys_of(part)]
    assert len(listed) == len(set(listed))
    sections = ("weighting.", "curriculum.", "augment.", "state.", "optim.")
    assert {key for key in dotted_keys() if key.startswith(sections)} <= set(listed)


def test_defaults_and_ranges_read_from_the_schema():
    known = dict(leaves())
    assert (default_of(known["weighting.alpha"]), range_of(known["weighting.alpha"])) == ("0", "number >= 0")
    assert range_of(known["augment.hue"]) == "number >= 0 and <= 0.5"
    assert range_of(known["optim.schedule"]) == "constant, cosine, linear"
    assert range_of(known["augment.color_views"]) == "whole number >= 1, or null"
    assert range_of(known["policy.max_state_dim"]) == "multiple of 8 >= 8, or null"
    assert range_of(known["state.features"]) == "any of contact_force, basket_distance"
    assert range_of(known["state.preset"]).startswith("top32, top31_base, winner23, ")
    assert default_of(TrialConfig.model_fields["data"]) == "required"
    assert range_of(known["data.train[].task_info.basket"]) == "2 whole numbers, or null"

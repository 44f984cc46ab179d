"""A search without room for all frames decides once which it draws from, and keeps to it."""

import dataclasses

import pytest

from smolvla_core.cache.plan import CachePlan
from smolvla_core.config_values import set_dotted
from smolvla_core.errors import ConfigError
from tests.test_plan import FACTS, lines_of, make
from tune.fitted_frames import fitted
from tune.run_folder import resumed_spec, write_specification
from tune.space import to_trial_config
from tune.spec import SearchSpec, load_spec

WHOLE = CachePlan("/cache", "embeddings", 800_512, 368_640, 400 * 10**9, None)
SMALL = dataclasses.replace(WHOLE, room=50 * 10**9, fit=135_121)
TOO_SMALL = dataclasses.replace(WHOLE, room=10**9)


def facts(cache):
    return dataclasses.replace(FACTS, cache=cache)


def with_frames(spec, frames):
    values = spec.to_dict()
    return SearchSpec.from_dict(values | {"trial": set_dotted(values["trial"], {"data.frames": frames})})


@pytest.mark.parametrize("cache", [None, WHOLE, TOO_SMALL])
def test_a_search_is_left_as_it_is_where_all_fits_or_too_little_does(cache):
    assert fitted(make(), facts(cache)) == make()


def test_all_trials_are_given_what_fits():
    spec = fitted(make(), facts(SMALL))
    assert to_trial_config(spec, {"weighting.alpha": 1.0}).data.frames == 135_121
    assert spec == with_frames(make(), 135_121)
    given = with_frames(make(), 999_999)
    assert fitted(given, facts(SMALL)) == given


def test_the_plan_says_so():
    text = " ".join(line.strip() for line in lines_of(make(), facts(SMALL)))
    assert (
        "Cache image embeddings of at most 800,512 frames, 369 kB each: 295 GB in /cache, which has room for 50 GB "
        "(runtime.cache_gb, free disk): so all trials draw from the same 135,121 training frames, a seeded sub-sample "
        "(data.frames sets another number)"
    ) in " ".join(text.split())
    text = " ".join(" ".join(lines_of(make(), facts(WHOLE))).split())
    assert "Cache image embeddings of at most 800,512 frames, 369 kB each: 295 GB in /cache Machine" in text
    text = " ".join(" ".join(lines_of(make(), facts(TOO_SMALL))).split())
    assert "room for 1 GB (runtime.cache_gb, free disk); the rest is computed whenever it is drawn" in text
    assert "Cache off" in " ".join(" ".join(lines_of(make(), facts(None))).split())


def test_a_resumed_study_keeps_its_frames_whatever_its_disk_has_now(tmp_path):
    write_specification(tmp_path, fitted(make(), facts(SMALL)), "", None)
    for given in (make(), None):
        assert resumed_spec(tmp_path, given, 0) == fitted(make(), facts(SMALL))
    with pytest.raises(ConfigError, match=r"trial\.data\.frames differs .* \(135121 then, 7 now\)"):
        resumed_spec(tmp_path, with_frames(make(), 7), 0)


def test_the_cache_s_folder_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = make().to_yaml()
    for written, expected in (("features", str(tmp_path / "features")), ("off", "off"), ("auto", "auto")):
        (tmp_path / "s.yaml").write_text(text)
        spec = load_spec(tmp_path / "s.yaml", [f"runtime.cache={written}"])[0]
        assert to_trial_config(spec, {"weighting.alpha": 1.0}).runtime.cache == expected

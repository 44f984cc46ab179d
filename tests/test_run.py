"""The command line as a user types it: exit codes, one line for every mistake, nothing left behind."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stub import stub_spec
from tune.preflight import Facts
from tune.records import Records
from tune.run import _run, main
from tune.run_folder import write_specification
from tune.summary import Summary

ROOT = Path(__file__).parents[1]

SEARCH = """\
study: small
trial:
  data: {{train: [{{root: {root}}}], val_fraction: 0.2, test_fraction: 0.1, cache_dir: {cache}}}
  state: {{preset: top32}}
  policy: {{pretrained: tiny, num_steps: 2}}
  optim: {{samples: 96, lr: 1.0e-3}}
  eval: {{frames: 4, draws: 1}}
  runtime: {{log_every_samples: 16}}
search:
  weighting.alpha:   {{type: float, low: 0.0, high: 2.0}}
  optim.batch_size:  {{type: categorical, choices: [8, 16]}}
  policy.chunk_size: {{type: categorical, choices: [30, 50]}}
warm_start:
  seed_baseline: {{weighting.alpha: 0.0, optim.batch_size: 8, policy.chunk_size: 50}}
budget: {{trials: 6}}
asha: {{grace_samples: 32, reduction_factor: 2}}
max_concurrent: 1
"""


@pytest.fixture(scope="module")
def search(eggs_root, cache_dir, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("search") / "small.yaml"
    file.write_text(SEARCH.format(root=eggs_root, cache=cache_dir))
    return file


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "tune.run", *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the YAML of a search is missing"),
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--what"], "unrecognized arguments: --what; see python -m tune.run --help"),
        (["{yaml}", "--set", "optim.batch_sise=8"], "--set: trial.optim.batch_sise: unknown key; did you mean"),
        (["{yaml}", "--set", "budget"], "expected KEY=VALUE"),
        (["{yaml}", "--set", "data.train.0.root=/nowhere"], "/nowhere: no such folder"),
        (["{yaml}", "--set", "eval.horizon_s=1.5"], "set eval.horizon_s to at most 1"),
        (["{yaml}", "--set", "asha.grace_samples=96"], "asha.grace_samples: got 96; it must be below optim.samples"),
        (["{yaml}", "--set", "data.cameras={front: observation.images.rgb.haed}"], "did you mean"),
        (["{yaml}", "--set", "policy.tokenizer_max_length=8"], "policy.tokenizer_max_length is 8, the instruction has"),
        (["{yaml}", "--resume"], "holds no run of the study 'small'"),
        (["--resume", "runs/nothing"], "holds no study.resolved.yaml"),
        (["--resume"], "give the study's YAML, or its folder"),
        (["{yaml}", "--extend", "0"], "'0' is no number above 0"),
        (["{yaml}", "--smoke", "--resume"], "--smoke starts a study of its own"),
        (["{yaml}", "--probe", "--resume"], "--probe measures before a study is started"),
        (["{yaml}", "--set", "resources.gpus=8"], "Ray has 2 and 0"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2_and_leaves_nothing(search, tmp_path, arguments, words):
    done = command(*[part.replace("{yaml}", str(search)) for part in arguments], cwd=tmp_path)
    line = done.stderr.strip()
    assert done.returncode == 2, done.stderr
    assert line.startswith("error: ")
    assert "\n" not in line
    assert words.replace("Ray has 2", f"Ray has {os.cpu_count()}") in line
    assert list(tmp_path.iterdir()) == []


def test_set_counts_on_a_resume_without_the_yaml(tmp_path, capsys):
    folder = tmp_path / "stub-20260131-120000"
    write_specification(folder, stub_spec(tmp_path), "study: stub\n")
    for number in range(2):
        Records(folder).start_trial(number, None, {}, {})
    fewer = "fewer than the 2 that"
    mistakes = {"budget.trials=1": fewer, "budget={trials: 1}": fewer, "seed=5": "seed differs from what"}
    for change, words in mistakes.items():
        assert main(["--resume", str(folder), "--set", change]) == 2
        assert words in capsys.readouterr().err


def test_a_dry_run_prints_the_plan_and_starts_nothing(search, tmp_path):
    done = command(search, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("6 trials", "weighting.alpha", "seed_baseline", "Rungs", "32 samples", "Results", "MLflow"):
        assert words in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_search_resume_and_extension_end_to_end(search, tmp_path):
    done = command(search, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 completed" in done.stdout or "stopped early" in done.stdout
    for words in ("Best trial", "parameters", "improvement", "mlflow ui --backend-store-uri", "Checkpoint"):
        assert words in done.stdout
    (folder,) = (tmp_path / "runs").glob("small-*")
    assert (folder / "best" / "model.safetensors").is_file()

    longer = command(search, "--extend", 2, cwd=tmp_path)
    assert longer.returncode == 0, longer.stderr
    assert len(list((folder / "trials").iterdir())) == 8
    assert [path.name for path in (tmp_path / "runs").glob("small-*")] == [folder.name]

    changed = command(search, "--resume", "--set", "optim.lr=1e-4", cwd=tmp_path)
    assert changed.returncode == 2
    assert "trial.optim.lr differs from what" in changed.stderr

    # the best trial's YAML is a run of its own
    line = [sys.executable, "-m", "smolvla_core.train", str(folder / "best.yaml"), "--set", "optim.samples=32"]
    alone = subprocess.run(
        [*line, "--set", "eval.at=[]", "--out", str(tmp_path / "alone")],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr


@pytest.mark.slow
def test_smoke_runs_every_branch_and_says_so(search, tmp_path):
    done = command(search, "--smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    branches = done.stdout.partition("Branches that ran")[2].splitlines()[1:]
    assert len(branches) == 6
    assert all(line.endswith("complete") for line in branches)


def test_how_to_continue_can_be_copied_for_a_folder_with_blanks(monkeypatch, tmp_path, capsys):
    spec, folder = stub_spec(tmp_path / "my runs"), tmp_path / "my runs" / "stub-1"
    ended = Summary("stub", "val/critical_action_mse", "min", "interrupted", None, None, None, {}, 0, 0.0)
    monkeypatch.setattr("tune.study.Study.run", lambda study, resume: ended)
    assert _run(spec, folder, "", Facts({}, {})) == 1
    told = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(told)[-2:] == ["--resume", str(folder)]


def as_ray_submit_does(home: Path, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Copy the one file to a home folder, and run it there."""
    home.mkdir()
    shutil.copy(ROOT / "tune" / "run.py", home)
    (home / "tune").mkdir()  # whatever else lies there
    line = [sys.executable, *options, str(home / "run.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, cwd=home, env=environment, capture_output=True, text=True, timeout=300)


def test_a_copied_script_finds_the_yaml_in_the_project(tmp_path):
    done = as_ray_submit_does(tmp_path / "home", "search_spaces/demo.yaml", "--dry-run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: search_spaces/demo.yaml:6: trial.data.train.0.root: ")
    assert f"{tmp_path}/home/runs/demo_data/lerobot: no such folder" in done.stderr


def test_a_copied_script_says_where_it_looked(tmp_path):
    home = tmp_path / "home"
    done = as_ray_submit_does(home, "search_spaces/none.yaml")
    assert done.returncode == 2
    places = f"{home}/search_spaces and {ROOT}/search_spaces"
    assert done.stderr == (
        f"error: search_spaces/none.yaml: no such file (looked in {places}); give the path of a search's YAML\n"
    )


def test_a_machine_without_the_package_is_told_so(tmp_path):
    done = as_ray_submit_does(tmp_path / "home", "x.yaml", options=("-S", "-E"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sys.executable} lacks the package smolvla-tune, which every machine of a")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_script_that_ray_submit_would_run_works_from_any_folder(search, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    line = [sys.executable, str(ROOT / "tune" / "run.py"), str(search), "--dry-run"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Study small" in done.stdout

"""A search of 16 trials: this service's wall time against one ``lerobot-train`` process a trial.

``python -m tests.benchmarks.search --arch small --data ../shared/data/g1_pick_bottle``

Ours is ``python -m tune.run``, everything in its time: the checks, Ray, the feature cache (built anew),
training, evaluations, MLflow and the export of the best policy. Theirs is ``lerobot-train``, one process
a trial, on the same points, each for as many steps as ASHA gave the trial in our search: they are told
for nothing which trials to stop and when, and have no evaluation. Theirs run one
after the other on all cores, ours one on each core, both in fp32. The space holds what both can do: batch,
chunk and learning rate. ``--theirs 4`` runs four of their trials, spread over the budgets, and takes the
others at those four's seconds to start and seconds a sample; it says so.

``--frames 480`` has ours draw from a sub-sample of frames, each with its whole chunk of actions. The time of
lerobot-train does not depend on how many there are; ours does, since a frame is encoded once. A fine-tuning of
real length draws each frame tens of times (SmolVLA's 20,000 steps of 64 samples on 50 episodes: 85 times), a
benchmark that ends within the hour does so on few frames only. The scores show what it costs.

When theirs are done, the policy of our best trial's point is scored by our objective, so that both
searches are seen to end at the same place; that is not in their time.

``small`` has SmolVLA's tokens (512 pixels, 64 tokens a camera), depths and proportions between vision
tower, VLM and expert at about 1/20 of the compute (``tests.benchmarks.world``); its weights are random.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SHARED = Path("../shared/data/g1_pick_bottle")
METRIC = "val/critical_action_mse"


def main() -> int:
    """Run both searches, and print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.search", description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=("full", "small", "tiny"), default="small")
    parser.add_argument("--data", type=Path, help=f"a LeRobot dataset; {SHARED} where it is there, else one made here")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--theirs", type=int, help="trials to run by lerobot-train (default: all)")
    parser.add_argument("--grace", type=int, default=192, help="samples of the first rung")
    parser.add_argument("--samples", type=int, default=1728, help="samples of a whole trial")
    parser.add_argument("--frames", type=int, help="frames that ours draws from, spread over all (default: all)")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks/search"), help="folder of both searches")
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    work = options.work.absolute() / options.arch
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    spec = _specification(options, work)
    ours_s, run_dir = _ours(spec, work)
    trials = _trials(run_dir)
    print(f"ours {ours_s:.0f} s", flush=True)
    theirs_s = {trial["number"]: _lerobot(trial, spec, work) for trial in _some(trials, options.theirs)}
    _print_comparison(options, spec, trials, ours_s, theirs_s, work)
    return 0


def _specification(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The search, on a dataset in v3.0 and a policy of its cameras."""
    from smolvla_core.config import DataConfig
    from smolvla_core.data.dataset import open_dataset
    from smolvla_core.data.pictures import Camera
    from tests.benchmarks.world import write_dataset, write_policy

    given = options.data or (SHARED if SHARED.is_dir() else write_dataset(work.parent / "dataset"))
    dataset = open_dataset(DataConfig(train=({"root": str(given.absolute())},), cache_dir=str(work / "cache")))
    cameras = {key: (Camera(dataset, key).height, Camera(dataset, key).width) for key in dataset.camera_keys}
    widths = dataset.state.shape[1], dataset.action.shape[1]
    policy = write_policy(work / "policy", options.arch, cameras, *widths)
    return {
        "study": f"benchmark_{options.arch}",
        "trial": {
            "data": {
                "train": [{"root": str(dataset.root)}],
                "frames": options.frames,
                "cache_dir": str(work / "cache"),
            },
            "state": {"preset": "identity", "track": "open"},  # as lerobot-train: all that is recorded
            "policy": {"pretrained": str(policy), "tokenizer_max_length": 256},
            "optim": {"samples": options.samples},
            "eval": {"frames": 32, "draws": 1, "horizon_s": 1.0},
            "runtime": {"precision": "fp32"},
        },
        "search": {
            "optim.lr": {"type": "float", "low": 3e-5, "high": 1e-3, "log": True},
            "optim.batch_size": {"type": "categorical", "choices": [4, 8, 16]},
            "policy.chunk_size": {"type": "categorical", "choices": [30, 50]},
        },
        "warm_start": {"seed_baseline": {"optim.lr": 1e-4, "optim.batch_size": 8, "policy.chunk_size": 50}},
        "budget": {"trials": options.trials},
        "asha": {"grace_samples": options.grace, "reduction_factor": 3},
        "resources": {"cpus": 1},
        "storage": str(work / "runs"),
    }


def _ours(spec: dict[str, Any], work: Path) -> tuple[float, Path]:
    file = work / "search.yaml"
    file.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    began = time.perf_counter()
    with (work / "ours.log").open("w") as log:
        subprocess.run([sys.executable, "-m", "tune.run", str(file)], check=True, stdout=log, stderr=log)
    seconds = time.perf_counter() - began
    (run_dir,) = (path for path in (work / "runs").iterdir() if (path / "summary.json").is_file())
    return seconds, run_dir


def _trials(run_dir: Path) -> list[dict[str, Any]]:
    """What each trial was, how far it came, and when it ended, in seconds since the search's start."""
    from tune.records import Records

    records = Records(run_dir)
    return [
        {
            "number": trial.number,
            "params": dict(trial.params),
            "samples": max(result.samples_seen for result in trial.results),
            "value": trial.values(METRIC),
        }
        for trial in records.trials()
    ]


def _some(trials: list[dict[str, Any]], count: int | None) -> list[dict[str, Any]]:
    """So many of the trials, from the shortest to the longest; the best is among them."""
    if count is None or count >= len(trials):
        return trials
    by_samples = sorted(trials, key=lambda trial: (trial["samples"], -trial["value"][max(trial["value"])]))
    return [by_samples[round(place)] for place in np.linspace(0, len(trials) - 1, count)]


def _all_seconds(trials: list[dict[str, Any]], theirs_s: dict[int, float]) -> float:
    """Seconds of all trials, where some were not run: a time to start, and one for each sample."""
    if len(theirs_s) == len(trials):
        return sum(theirs_s.values())
    run = [trial for trial in trials if trial["number"] in theirs_s]
    a_sample, start = np.polyfit([trial["samples"] for trial in run], [theirs_s[trial["number"]] for trial in run], 1)
    return sum(theirs_s.get(trial["number"], float(start + a_sample * trial["samples"])) for trial in trials)


def _lerobot(trial: dict[str, Any], spec: dict[str, Any], work: Path) -> float:
    """Seconds of ``lerobot-train`` on one trial's point, for as many steps as the trial took."""
    params, fixed = trial["params"], spec["trial"]
    batch, chunk = params["optim.batch_size"], params["policy.chunk_size"]
    steps = trial["samples"] // batch
    options = {
        "dataset.repo_id": "local/benchmark",
        "dataset.root": fixed["data"]["train"][0]["root"],
        "policy.path": fixed["policy"]["pretrained"],
        "policy.push_to_hub": "false",
        "policy.device": "cpu",
        "policy.chunk_size": chunk,
        "policy.n_action_steps": chunk,
        "output_dir": work / "lerobot" / f"{trial['number']:03d}",
        "batch_size": batch,
        "steps": steps,
        "save_freq": steps,
        "log_freq": 10,
        "num_workers": 1,
        "wandb.enable": "false",
        "use_policy_training_preset": "false",
        "optimizer.type": "adamw",
        "optimizer.lr": params["optim.lr"],
        "optimizer.betas": "[0.9,0.95]",
        "optimizer.eps": 1e-8,
        "optimizer.weight_decay": 1e-10,
        "optimizer.grad_clip_norm": 10,
        "scheduler.type": "cosine_decay_with_warmup",  # from the peak to the peak: a constant, as ours is
        "scheduler.num_warmup_steps": 0,
        "scheduler.num_decay_steps": steps,
        "scheduler.peak_lr": params["optim.lr"],
        "scheduler.decay_lr": params["optim.lr"],
    }
    line = [
        sys.executable,
        "-m",
        "lerobot.scripts.lerobot_train",
        *(f"--{key}={value}" for key, value in options.items()),
    ]
    began = time.perf_counter()
    with (work / f"lerobot-{trial['number']:03d}.log").open("w") as log:
        subprocess.run(line, check=True, stdout=log, stderr=log)
    return time.perf_counter() - began


def _score(trial: dict[str, Any], spec: dict[str, Any], work: Path) -> float:
    """Our objective of the policy that lerobot-train left for a trial."""
    from smolvla_core.evaluate import evaluate
    from smolvla_core.trial import prepare
    from tune.trainable import trial_config

    (policy,) = (work / "lerobot" / f"{trial['number']:03d}").glob("checkpoints/[0-9]*/pretrained_model")
    config = trial_config({**spec["trial"], **trial["params"], "policy.pretrained": str(policy)})
    prepared = prepare(config)
    return evaluate(prepared.learner, prepared.maker, prepared.frames)[METRIC]


def _print_comparison(
    options: argparse.Namespace,
    spec: dict[str, Any],
    trials: list[dict[str, Any]],
    ours_s: float,
    theirs_s: dict[int, float],
    work: Path,
) -> None:
    budget = [trial for trial in trials if trial["samples"] >= options.samples]
    best = min(budget, key=lambda trial: trial["value"][max(trial["value"])])
    samples = sum(trial["samples"] for trial in trials)
    total = _all_seconds(trials, theirs_s)
    print(f"{options.arch}, {len(trials)} trials on {spec['trial']['data']['train'][0]['root']}")
    print(f"rungs from {options.grace} to {options.samples} samples; {samples} samples in all; {os.cpu_count()} cores")
    print(f"ours drew from {options.frames or 'all'} frames, lerobot-train from all")
    print(f"ours            {ours_s:7.0f} s for the whole search ({len(budget)} trials to the end)")
    print(f"lerobot-train   {total:7.0f} s for the same trials, stopped at the same places")
    if len(theirs_s) < len(trials):
        run_s = sum(theirs_s.values())
        print(f"                of which {len(theirs_s)} trials were run, {run_s:.0f} s; the others are estimated")
    print(f"times as fast   {total / ours_s:7.1f}")
    print(f"the best trial's point is trial {best['number']}: {json.dumps(best['params'])}")
    start = best["value"][min(best["value"])]
    print(f"  {METRIC} by ours {best['value'][max(best['value'])]:.4f} (at its first rung {start:.4f})")
    print(f"  {METRIC} by lerobot-train's policy of it {_score(best, spec, work):.4f} (other samples and noise)")


if __name__ == "__main__":
    sys.exit(main())

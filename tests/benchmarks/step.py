"""One training step: lerobot-train's against ours, on the same batches, each in its own process.

``python -m tests.benchmarks.step --arch full --batch 8 --steps 3``

Theirs is ``lerobot.scripts.lerobot_train.update_policy`` with lerobot's dataset, dataloader,
processors and optimizer; ours is ``smolvla_core``'s learner and data: without the feature cache, with
an empty one that the steps fill, with the one that they have filled, and then by ``torch.compile``
(``runtime.compile``). Every step takes other frames from video files; decoding, tokenising, the cache's
reading and writing and the optimizer's step are in the time; compiling is in the first step, which is
told apart. Samples, noise and times are one stream's, so that losses and gradients can be compared. All
sides compute in fp32, but for two that are run on a GPU.
"""

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SIDES = {
    "lerobot": "lerobot-train",
    "ours": "ours, without the cache",
    "cold": "ours, filling an empty cache",
    "embeddings": "ours, from the filled cache, of image embeddings alone",
    "warm": "ours, from the filled cache, with what the VLM makes of a frame",
    "compiled": "the same, compiled",
    "bf16": "ours, from a filled cache, in bf16",
    "bf16_compiled": "the same, compiled",
}


def main() -> int:
    """Run the sides one after the other, and print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.step", description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=("full", "small", "tiny"), default="tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one for warming up")
    parser.add_argument("--workers", type=int, default=0, help="of lerobot's dataloader (its default: 4)")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="folder of data and policy")
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="beside lerobot's (default: all; bf16 on a GPU)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--fill", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    options.work = options.work.absolute()
    if options.side:
        _run_side(options)
        return 0
    import torch

    from tests.benchmarks.world import write_dataset, write_policy

    write_dataset(options.work / "dataset")
    write_policy(options.work / options.arch, options.arch)
    on_gpu = torch.cuda.is_available()
    asked = options.sides or [side for side in SIDES if on_gpu or not _in_bf16(side)]
    sides = [side for side in SIDES if side in ("lerobot", *asked)]
    for side in sides:
        if side == "cold":
            shutil.rmtree(options.work / "cache", ignore_errors=True)
        command = [sys.executable, "-m", "tests.benchmarks.step", *sys.argv[1:], "--side", side]
        if side not in ("lerobot", "ours", "cold"):  # by a process of its own, so that memory is the step's
            subprocess.run([*command, "--fill"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    _print_comparison(options, sides)
    return 0


def _in_bf16(side: str) -> bool:
    return side.startswith("bf16")


def _run_side(options: argparse.Namespace) -> None:
    import torch

    from smolvla_core.config import TrialConfig
    from smolvla_core.data.sampler import Curriculum, SampleStream
    from smolvla_core.trial import resolve

    config = TrialConfig.from_dict(
        {
            "data": {"train": [{"root": str(options.work / "dataset")}], "val_fraction": 0.2},
            "state": {"preset": "identity"},
            "policy": {"pretrained": str(options.work / options.arch), "tokenizer_max_length": 256},
            "optim": {"batch_size": options.batch},
            "eval": {"frames": 1},
            "runtime": {
                "precision": "bf16" if _in_bf16(options.side) else "fp32",
                "compile": options.side.endswith("compiled"),
                "cache": _cache_folder(options),
                "prefixes": "off" if options.side == "embeddings" else "auto",
            },
        }
    )
    inputs = resolve(config)
    dataset = inputs.dataset
    rows = dataset.rows_of(inputs.split.train)
    # frames with a whole chunk before them: with padding, lerobot averages a batch otherwise than we do
    whole = rows[dataset.frame[rows] + config.policy.chunk_size <= dataset.lengths[dataset.episode[rows]]]
    stream = SampleStream(Curriculum.none(whole), seed=0)
    count = options.steps + 1
    assert count * options.batch <= len(whole), "the dataset is too small for so many distinct frames"
    if options.fill:
        _fill(config, stream, count, options.batch)
        return
    step, optimizer = (_lerobot if options.side == "lerobot" else _ours)(options, config, inputs, stream)

    gradients: dict[str, Any] = {}

    def keep(*_: Any) -> None:
        if not gradients:
            kept = [(n, p.grad.detach().cpu().clone()) for n, p in step.policy.named_parameters() if p.grad is not None]
            gradients.update(kept)

    # the first step warms up, and its gradients are compared; they are gone before memory is measured
    hook = optimizer.register_step_pre_hook(keep)
    started = time.perf_counter()
    losses, wall, cpu = [step(0)], [], []
    first_s = time.perf_counter() - started
    hook.remove()
    torch.save(gradients, options.work / f"gradients-{options.side}.pt")
    gradients.clear()
    _forget_peak()
    for index in range(1, count):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started, used = time.perf_counter(), time.process_time()
        losses.append(step(index))
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
    result: dict[str, Any] = {"losses": losses, "wall": wall, "cpu": cpu, "first_s": first_s}
    result |= {"loaded": step.loaded, "peak": _memory("VmHWM"), "frames": len(rows)}
    result |= {kind: _taken(options.work / "cache", kind) for kind in ("embeddings", "prefixes")}
    result |= _checkpoint(step, options.work / f"checkpoint-{options.side}")
    result["machine"] = (
        f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}, {torch.get_num_threads()} threads"
    )
    (options.work / f"result-{options.side}.json").write_text(json.dumps(result))


def _taken(cache: Path, kind: str) -> int:
    """Bytes on the disk of a kind of the cache's values."""
    return sum(file.stat().st_blocks * 512 for file in cache.glob(f"*-{kind}-*/data"))


def _checkpoint(step: "_Step", folder: Path) -> dict[str, float]:
    """Bytes of what a side writes to go on from, and the seconds that it takes to write."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.perf_counter()
    step.save(folder)
    seconds = time.perf_counter() - began
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shutil.rmtree(folder)
    return {"checkpoint": size, "checkpoint_s": seconds}


class _Step:
    """One side's step, by its index in the stream, and its checkpoint."""

    def __init__(self, policy: Any, run: Callable[[int], float], save: Callable[[Path], None]):
        self.policy, self.run, self.save = policy, run, save
        for parameter in policy.parameters():  # weights that are mapped from their file count as loaded
            parameter.detach().sum()
        _forget_peak()
        self.loaded = _memory("VmRSS")

    def __call__(self, index: int) -> float:
        return self.run(index)


def _lerobot(options: argparse.Namespace, config: Any, inputs: Any, stream: Any) -> tuple[_Step, Any]:
    """As ``lerobot_train.train`` sets itself up."""
    import torch
    from accelerate import Accelerator
    from lerobot.common.train_utils import save_checkpoint
    from lerobot.configs import PreTrainedConfig
    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.datasets.factory import make_dataset
    from lerobot.optim.factory import make_optimizer_and_scheduler
    from lerobot.policies import make_policy, make_pre_post_processors
    from lerobot.scripts.lerobot_train import update_policy
    from lerobot.utils.logging_utils import AverageMeter, MetricsTracker

    from smolvla_core.policy import training_stats

    device = "cuda" if torch.cuda.is_available() else "cpu"
    smolvla = PreTrainedConfig.from_pretrained(options.work / options.arch)
    smolvla.pretrained_path, smolvla.device = options.work / options.arch, device
    pipeline = TrainPipelineConfig(
        dataset=DatasetConfig("local/benchmark", root=str(options.work / "dataset")), policy=smolvla
    )
    pipeline.optimizer, pipeline.scheduler = smolvla.get_optimizer_preset(), None
    accelerator = Accelerator(step_scheduler_with_optimizer=False, cpu=device == "cpu")
    dataset = make_dataset(pipeline)
    policy = make_policy(cfg=smolvla, ds_meta=dataset.meta)
    stats = training_stats(inputs.interface)
    preprocessor, postprocessor = make_pre_post_processors(policy_cfg=smolvla, dataset_stats=stats)
    own_optimizer, _ = make_optimizer_and_scheduler(pipeline, policy)
    # one more than is used: accelerate's loader reads a batch ahead, also before the last timed step
    batches = [stream.rows(index * options.batch, options.batch).tolist() for index in range(options.steps + 2)]
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=batches, num_workers=options.workers)
    policy, optimizer, loader = accelerator.prepare(policy, own_optimizer, loader)
    policy.train()
    names = ("loss", "grad_norm", "lr", "update_s", "dataloading_s", "gpu_mem_gb")
    meters = {name: AverageMeter(name, ":.3f") for name in names}
    tracker = MetricsTracker(options.batch, dataset.num_frames, dataset.num_episodes, meters, accelerator=accelerator)
    iterator = iter(loader)

    def run(index: int) -> float:
        nonlocal tracker
        _draw_from_stream(policy, stream, index * options.batch)
        batch = next(iterator)
        for key in dataset.meta.camera_keys:
            batch[key] = batch[key].to(dtype=torch.float32) / 255.0
        tracker, _ = update_policy(
            tracker, policy, preprocessor(batch), optimizer, pipeline.optimizer.grad_clip_norm, accelerator
        )
        return tracker.loss.val

    def save(folder: Path) -> None:
        save_checkpoint(folder, options.steps, pipeline, policy, own_optimizer, None, preprocessor, postprocessor)

    return _Step(policy, run, save), own_optimizer


def _draw_from_stream(policy: Any, stream: Any, first: int) -> None:
    """Give lerobot's policy the stream's noise and times in place of its own draws."""
    import torch

    def noise(shape: tuple[int, ...], device: Any) -> Any:
        return torch.from_numpy(stream.flow(first, *shape)[0]).to(device)

    def times(count: int, device: Any) -> Any:
        return torch.from_numpy(stream.flow(first, count, 1, 1)[1]).to(device)

    policy.model.sample_noise, policy.model.sample_time = noise, times


def _fill(config: Any, stream: Any, count: int, batch: int) -> None:
    """Draw all batches once, so that the cache has what they need."""
    from smolvla_core.trial import prepare

    trial = prepare(config)
    for index in range(count):
        trial.maker.training(stream, index * batch, batch)


def _ours(options: argparse.Namespace, config: Any, inputs: Any, stream: Any) -> tuple[_Step, Any]:
    from smolvla_core.checkpoint import save_state
    from smolvla_core.trial import prepare

    trial = prepare(config)
    assert "fast" in trial.learner.forward_line

    def run(index: int) -> float:
        batch = trial.maker.training(stream, index * options.batch, options.batch)
        return trial.learner.step(batch, config.optim.peak_lr).loss

    return _Step(trial.learner.policy, run, partial(save_state, trial.learner)), trial.learner.optimizers


def _cache_folder(options: argparse.Namespace) -> str:
    return "off" if options.side in ("lerobot", "ours") else str(options.work / "cache")


def _memory(name: str) -> int:
    """Bytes in use (VmRSS) or at most in use (VmHWM) since :func:`_forget_peak`, on the GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() if name == "VmRSS" else torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _forget_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _print_comparison(options: argparse.Namespace, sides: list[str]) -> None:
    import torch

    results = {side: json.loads((options.work / f"result-{side}.json").read_text()) for side in sides}
    reference = results["lerobot"]
    expected = torch.load(options.work / "gradients-lerobot.pt")
    print(f"{options.arch}, batch {options.batch}, {options.steps} timed steps, {reference['machine']}")
    for side, result in results.items():
        samples = [options.batch / seconds for seconds in result["wall"]]
        ratios = [min(reference[clock]) / min(result[clock]) for clock in ("wall", "cpu")]
        print(f"\n{SIDES[side]}")
        print(
            f"  samples/s         best step {max(samples):.3f}, mean {len(samples) / sum(1 / s for s in samples):.3f}"
        )
        if side.endswith("compiled"):
            print(f"  first step        {result['first_s']:.0f} s, compiling")
        print(f"  CPU seconds/step  best step {min(result['cpu']):.2f}")
        print(f"  times as fast     {ratios[0]:.2f} (best steps), {ratios[1]:.2f} (CPU seconds)")
        peak, loaded = result["peak"] / 1e9, result["loaded"] / 1e9
        beyond = (result["peak"] - result["loaded"]) / (reference["peak"] - reference["loaded"])
        print(f"  peak memory       {peak:.2f} GB, of which {loaded:.2f} were loaded before the first step", end="")
        print("" if side == "lerobot" else f"; {beyond:.2f} of lerobot-train's beyond them")
        share = result["checkpoint"] / reference["checkpoint"]
        print(f"  checkpoint        {result['checkpoint'] / 1e6:,.0f} MB in {result['checkpoint_s']:.1f} s", end="")
        print("" if side == "lerobot" else f"; {share:.2f} of lerobot-train's")
        if side != "lerobot":
            found = torch.load(options.work / f"gradients-{side}.pt")
            assert set(found) == set(expected)
            worst = max(((found[n] - expected[n]).norm() / expected[n].norm()).item() for n in expected)
            losses = max(abs(a - b) / a for a, b in zip(reference["losses"], result["losses"], strict=True))
            print(f"  largest difference, relative: loss of a step {losses:.1e}, gradient of a parameter {worst:.1e}")
    if {"ours", "cold", "warm"} <= set(sides):
        _print_payback(options, results)


def _print_payback(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """What the cache itself costs, and when that has come back. Of mean steps: a fill waits for the disk."""
    seconds = {side: sum(result["wall"]) / len(result["wall"]) / options.batch for side, result in results.items()}
    lerobot, without, cold, warm = (1e3 * seconds[side] for side in ("lerobot", "ours", "cold", "warm"))
    frames = results["warm"]["frames"]
    stored = options.batch * (options.steps + 1)
    print("\nthe cache")
    for kind, what in (("embeddings", "image embeddings"), ("prefixes", "keys and values")):
        print(f"  {what:17} {results['warm'][kind] / stored / 1e3:,.0f} kB a frame, on the disk")
    print(f"  a frame's first draw {cold:.0f} ms, {cold - without:+.0f} ms against none; each later one {warm:.0f} ms")
    fill = frames * (cold - warm) / 1e3
    print(f"  to fill it with all {frames:,} training frames: {fill:.0f} s, as training draws them")
    for name, other in (("ours without it", without), ("lerobot-train", lerobot)):
        if other > warm:
            samples = fill * 1e3 / (other - warm)
            each = f"{samples / frames:.2f} of each frame"
            print(f"  paid for itself   after {samples:,.0f} samples ({each}), against {name}")
        else:
            print(f"  never pays for itself against {name}")


if __name__ == "__main__":
    sys.exit(main())

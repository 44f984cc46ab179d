"""``python -m smolvla_core.evaluate CHECKPOINT --env garden``: a policy acts, and is scored."""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smolvla_core.closed_loop.environment import (
    AT_ONCE,
    GARDEN,
    SMALL_PICTURES,
    EnvSpec,
    environment_factory,
    parse_instances,
)
from smolvla_core.command import OK, Parser, answer, refuse_unwritable, secret_of
from smolvla_core.data.wording import counted
from smolvla_core.errors import ConfigError

if TYPE_CHECKING:
    from smolvla_core.closed_loop.kept import Kept
    from smolvla_core.closed_loop.policies import ChunkPolicy
    from smolvla_core.closed_loop.rollout import Notify

NOTHING = "nothing"


def main(arguments: list[str] | None = None) -> int:
    """The command line; see ``--help``."""
    options = _parse(arguments)
    return answer(lambda: _evaluate(options))


def _evaluate(options: argparse.Namespace) -> int:
    instances = parse_instances(options.instances)
    _refuse_contradictions(options)
    environment_factory(options.env)  # a wrong name, or packages that are missing, before anything is loaded
    from smolvla_core.closed_loop.kept import Kept
    from smolvla_core.closed_loop.results import document, score_lines, write_results
    from smolvla_core.closed_loop.rollout import Rollout, run_episodes
    from smolvla_core.closed_loop.scores import summarise

    env = EnvSpec(options.env, options.picture_size or None, True, options.max_seconds, options.task)
    out = Path(options.out or f"runs/closed_loop-{time.strftime('%Y%m%d-%H%M%S')}")
    refuse_unwritable("--out", out)  # not when hours of acting are to be written there
    videos = {number: out / "videos" / f"instance_{number}.mp4" for number in instances[: options.videos]}
    rollout = Rollout(options.at_once, options.jobs, videos)
    with contextlib.closing(_policy(options, env)) as policy:
        described = policy.describe()
        kept = Kept(out, _decisive(options, env, described))
        with _said_what_is_kept(kept, out), _progress(len(instances)) as notify:
            episodes = run_episodes(policy, env, instances, rollout, notify, kept)
    scores = summarise(episodes)
    file = write_results(out, document(env, described, options.seed, episodes, scores))
    kept.clear()
    print("\n".join([*score_lines(scores, len(episodes)), f"Results  {file}"]))
    return OK


def _decisive(options: argparse.Namespace, env: EnvSpec, described: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides what comes of an instance."""
    from smolvla_core.closed_loop.kept import weights_digest

    weights = weights_digest(Path(options.checkpoint)) if options.checkpoint else None
    return {"env": asdict(env), "policy": dict(described), "seed": options.seed, "weights": weights}


@contextlib.contextmanager
def _said_what_is_kept(kept: "Kept", out: Path) -> Iterator[None]:
    """Whatever ends the evaluation, say how it can go on."""
    try:
        yield
    except BaseException:
        if kept.episodes:
            there = f"{counted(len(kept.episodes), 'episode')} kept in {out}"
            print(f"{there}; the same command with --out {out} goes on with the others", file=sys.stderr)
        raise


def _policy(options: argparse.Namespace, env: EnvSpec) -> "ChunkPolicy":
    from smolvla_core.closed_loop.policies import ActorPolicy, ServedPolicy, StayingPolicy

    if options.policy == NOTHING:
        return StayingPolicy()
    if options.policy_server:
        return ServedPolicy(options.policy_server, secret_of("--api-key-env", options.api_key_env), options.seed)
    from smolvla_core.acting import device_of, load_actor

    device = device_of(options.device)
    return ActorPolicy(
        load_actor(options.checkpoint, device, options.n_action_steps, options.instruction, env.control_hz()),
        options.seed,
        options.blind,
    )


def _refuse_contradictions(options: argparse.Namespace) -> None:
    asked = {"CHECKPOINT": options.checkpoint, "--policy": options.policy, "--policy-server": options.policy_server}
    given = [name for name, value in asked.items() if value]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ConfigError(f"one of CHECKPOINT, --policy and --policy-server says who acts; {found} is given")
    if options.checkpoint is None and (options.n_action_steps or options.instruction or options.blind):
        raise ConfigError(
            "--n-action-steps, --instruction and --blind are for a CHECKPOINT; a server is given them at its start"
        )
    for name, least in (("at_once", 1), ("jobs", 1), ("videos", 0), ("seed", 0)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least {least}")


@contextlib.contextmanager
def _progress(total: int) -> Iterator["Notify"]:
    columns = (TextColumn("Episodes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m smolvla_core.evaluate",
        description="Let a policy act in an environment, and score what it achieves.",
        epilog="Exit code: 0 success, 2 bad input, 1 anything else.",
    )
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="folder of an exported policy: RUN/best")
    parser.add_argument("--env", default=GARDEN, help="garden (default), or one of your own as package.module:factory")
    parser.add_argument("--task", help="of the environment's, where it has several")
    parser.add_argument("--instances", default="301-400", metavar="LIST", help="e.g. 301-400 (default) or 301,310-320")
    parser.add_argument("--policy", choices=[NOTHING], help="a baseline in place of CHECKPOINT")
    parser.add_argument("--policy-server", metavar="URL", help="ask a server of BEHAVIOR's protocol, ws://HOST:PORT")
    parser.add_argument("--api-key-env", metavar="NAME", help="environment variable with the server's key")
    parser.add_argument("--n-action-steps", type=int, metavar="N", help="actions of a chunk that are done")
    parser.add_argument("--instruction", metavar="TEXT", help="what the policy is told (default: as in training)")
    parser.add_argument("--blind", action="store_true", help="black pictures: what it achieves without looking")
    parser.add_argument(
        "--picture-size", type=int, default=SMALL_PICTURES, metavar="PX", help="default: 96; 0 takes BEHAVIOR's sizes"
    )
    parser.add_argument("--max-seconds", type=float, metavar="S", help="the longest an episode lasts")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, metavar="N", help="environments side by side")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that step them (default: 1)")
    parser.add_argument("--videos", type=int, default=0, metavar="K", help="film the first K instances")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=0, help="of the policy's noise (default: 0)")
    parser.add_argument("--out", metavar="DIR", help="where results.json goes (default: runs/closed_loop-TIME)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

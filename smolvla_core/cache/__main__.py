"""Compute ahead what trials would compute as they draw it: ``python -m smolvla_core.cache build CONFIG.yaml``."""

import argparse
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from smolvla_core.command import FAILED, OK, Parser, answer
from smolvla_core.config_file import load_trial
from smolvla_core.errors import ConfigError


def main(arguments: list[str] | None = None) -> int:
    """The command line; see ``--help``."""
    parser = Parser(prog="python -m smolvla_core.cache", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    build = commands.add_parser("build", help="fill the cache for a trial, or for all trials of a search")
    build.add_argument("config", metavar="CONFIG.yaml", help="a trial's YAML, or a search's")
    build.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. runtime.cache_gb=200")
    build.add_argument("--workers", type=_count, default=1, metavar="N", help="processes; each holds a policy")
    build.add_argument("--dry-run", action="store_true", help="say how large it becomes, and end")
    options = parser.parse_args(arguments)
    return answer(lambda: _build(options), "interrupted; the same command goes on where it stopped")


def _build(options: argparse.Namespace) -> int:
    config, is_search = load_trial(options.config, options.set)
    from smolvla_core.cache.build import build
    from smolvla_core.cache.plan import plan_cache
    from smolvla_core.trial import resolve

    plan = plan_cache(config, resolve(config))
    if plan is None:
        raise ConfigError("runtime.cache: is off; set it to auto, or to a folder")
    thinned = is_search and plan.fit is not None
    print(plan.text(thinned), flush=True)
    if options.dry_run:
        return OK
    if thinned:
        config = config.with_values({"data.frames": plan.fit})
    console = Console(stderr=True)
    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("filling the cache", total=None)
        try:
            built = build(config, options.workers, lambda done, total: bar.update(task, completed=done, total=total))
        except BrokenProcessPool:
            print(
                "error: a worker process died (out of memory?); the same command goes on where it stopped, with fewer "
                "--workers",
                file=sys.stderr,
            )
            return FAILED
    seconds = time.monotonic() - started
    print(f"{built.computed:,} computed in {seconds:.1f} s; the rest was there")
    if built.left_out:
        print(f"{built.left_out:,} of them were not kept: no room; raise runtime.cache_gb, or free disk space")
        return FAILED
    return OK


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of processes above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

"""Search for the best way to fine-tune SmolVLA: ``python -m tune.run SEARCH.yaml``.

Reads and checks the YAML, opens the data, plans, searches, and leaves the best trial as a LeRobot
policy. Exit code 0 on success, 2 on bad input (one line says what to change), 1 otherwise.
"""

import argparse
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):
    # `ray submit` copies this file alone to the head's home folder and runs it there: the package is then
    # the installed one, and nothing in that folder may stand before it
    _here = Path(__file__).resolve().parent
    sys.path[:1] = [str(_here.parent)] if (_here / "spec.py").is_file() else []

try:
    from smolvla_core.command import FAILED, OK, Parser, answer, python_command, read_count, refuse_unwritable
    from smolvla_core.errors import ConfigError
    from tune.source import Source
    from tune.spec import SearchSpec, load_spec
except ModuleNotFoundError as error:
    if error.name not in ("smolvla_core", "tune"):
        raise
    print(
        f"error: {sys.executable} lacks the package smolvla-tune, which every machine of a cluster needs; "
        "install it there (docs/cluster.md), e.g. pip install -e FOLDER_OF_THE_PROJECT",
        file=sys.stderr,
    )
    sys.exit(2)

if TYPE_CHECKING:
    from tune.preflight import Facts


_CHECKING = "Checking the data and every branch of the space ..."


def main(arguments: list[str] | None = None) -> int:
    """The command line; see ``--help``."""
    options = _parse(arguments)
    if options.reconcile:
        command = _reconcile
    elif options.resume is not None or options.extend:
        command = _resume
    elif options.smoke:
        command = _smoke
    else:
        command = _search
    return answer(lambda: command(options))


def _search(options: argparse.Namespace) -> int:
    """A new study."""
    spec, source = load_spec(_yaml(options), options.set)
    folder = _new_folder(spec)
    spec, facts = _plan(spec, source, options, folder)
    if options.dry_run:
        return OK
    with _taken(folder, spec) as own:
        return _run(spec, own, source.text, facts)


def _smoke(options: argparse.Namespace) -> int:
    """Every branch of the space once, cut down to seconds."""
    from tune.records import Records
    from tune.smoke import all_branches_ran, branch_lines, smoke_spec, with_demo_data
    from tune.space import make_space
    from tune.study import Study

    full, source = load_spec(_yaml(options), with_demo_data(_yaml(options), options.set))
    spec = smoke_spec(full)
    folder = _new_folder(spec)
    spec, facts = _plan(spec, source, options, folder)
    if options.dry_run:
        return OK
    with _taken(folder, spec) as own:
        Study(spec, own, source.text, facts.dataset, facts.objective).run()
        trials = Records(own).trials()
    _print(["", "Branches that ran", *branch_lines(make_space(spec), trials)])
    return OK if all_branches_ran(make_space(spec), trials) else FAILED


def _plan(spec: SearchSpec, source: Source, options: argparse.Namespace, folder: Path) -> tuple[SearchSpec, "Facts"]:
    """Check everything, and say what will be done; the search, with what was decided on the way."""
    from tune.fitted_frames import fitted
    from tune.plan import plan_lines
    from tune.preflight import preflight

    _print([_CHECKING, ""])
    facts = preflight(spec, source)
    spec = fitted(spec, facts)
    _print([*plan_lines(spec, facts, _shown(folder)), ""])
    if options.probe:
        _print([*_measure(spec), ""])
    return spec, facts


def _resume(options: argparse.Namespace) -> int:
    """Go on with a study: its missing trials, and those of ``--extend``."""
    from smolvla_core.config_values import parse_assignments, set_dotted
    from tune import driver
    from tune.preflight import preflight
    from tune.run_folder import RESOLVED, find_folder, opened, refuse_other_data, resumed_spec, stored_yaml

    given, source = load_spec(options.yaml, options.set) if options.yaml else (None, None)
    if options.resume:
        folder = opened(options.resume)
    elif given is not None:
        folder = find_folder(given)
    else:
        raise ConfigError("--resume: give the study's YAML, or its folder after --resume")
    if given is None and options.set:
        given, _ = load_spec(folder / RESOLVED, options.set)
    asked = set_dotted({}, parse_assignments(options.set)).get("budget")
    spec = resumed_spec(folder, given, options.extend, isinstance(asked, dict) and "trials" in asked)
    if given is not None and spec.budget.trials - options.extend > given.budget.trials:
        there = spec.budget.trials - options.extend
        more = f"The study goes on to its {there} trials, more than the {given.budget.trials} of the YAML"
        _print([f"{more}; --set budget.trials=N ends it earlier"])
    refuse_unwritable("--resume", folder)
    driver.hold(folder)  # before the checks, which take a while: another process may drive it
    text = source.text if source else stored_yaml(folder)
    _print([_CHECKING])
    facts = preflight(spec, source)
    refuse_other_data(folder, facts.dataset)
    _print([f"Continuing {_shown(folder)}", ""])
    return OK if options.dry_run else _run(spec, folder, text, facts, resume=True)


def _run(spec: SearchSpec, folder: Path, yaml_text: str, facts: "Facts", resume: bool = False) -> int:
    from tune.mirror import home_of
    from tune.report import closing_lines
    from tune.study import Study
    from tune.tracking import viewing_command, viewing_page

    summary = Study(spec, folder, yaml_text, facts.dataset, facts.objective).run(resume)
    where = spec.tracking.uri, folder, spec.tracking.enabled
    _print(closing_lines(summary, viewing_command(*where), viewing_page(*where)))
    home = home_of(spec, folder)
    if home is not None:
        _print([f"Kept at         {home}"])
    if summary.state != "complete":
        place = shlex.quote(home or _shown(folder))
        _print([f"Continue with  {python_command()} -m tune.run --resume {place}"])
    return OK if summary.state == "complete" and summary.best is not None else FAILED


def _reconcile(options: argparse.Namespace) -> int:
    """Close the MLflow runs that dead drivers left running."""
    from tune.tracking import reconcile

    spec = load_spec(options.yaml, options.set)[0] if options.yaml else None
    closed = reconcile(spec.tracking.uri if spec else None, spec.experiment if spec else None, _storage(spec))
    _print([f"{closed} runs that a dead driver had left running were closed"])
    return OK


def _measure(spec: SearchSpec) -> list[str]:
    from tune.capacity import concurrency
    from tune.packing import machines, pack, packed_line, while_measuring
    from tune.probe import Measured, largest_point, points_to_measure, probe, probe_lines
    from tune.ray_session import ray_session

    with ray_session():
        if not spec.resources.auto:
            at_once = concurrency(spec.resources, spec.max_concurrent)
            return list(probe_lines(spec, probe(spec, spec.resources, points_to_measure(spec)), at_once))
        found = probe(spec, while_measuring(machines()), points_to_measure(spec))
        largest = found[largest_point(spec)[0]]
        if not isinstance(largest, Measured):
            return list(probe_lines(spec, found, 1))
        resources = pack(largest, machines())
        at_once = concurrency(resources, spec.max_concurrent)
        return [*probe_lines(spec, found, at_once), packed_line(largest, resources)]


def _new_folder(spec: SearchSpec) -> Path:
    from tune.run_folder import new_folder

    return new_folder(spec)


@contextmanager
def _taken(folder: Path, spec: SearchSpec) -> Iterator[Path]:
    from tune.run_folder import taken

    with taken(folder, spec) as own:
        if own != folder:
            _print([f"Results    {_shown(own)}, since another search has just taken {folder.name}"])
        yield own


def _storage(spec: SearchSpec | None) -> Path:
    return Path("runs") if spec is None or spec.is_remote else Path(spec.storage)


def _yaml(options: argparse.Namespace) -> str:
    if options.yaml is None:
        raise ConfigError("the YAML of a search is missing; e.g. python -m tune.run search_spaces/demo.yaml")
    return str(options.yaml)


def _shown(folder: Path) -> str:
    """A path as short as it can be from here."""
    inside = folder.is_relative_to(Path.cwd())
    return str(folder.relative_to(Path.cwd())) if inside else str(folder)


def _print(lines: Iterable[str]) -> None:
    print("\n".join(lines), flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m tune.run",
        description="Search for the best way to fine-tune SmolVLA on a LeRobot dataset.",
        epilog="Exit code: 0 success, 2 bad input, 1 anything else. Ctrl-C ends a study so that --resume continues it.",
    )
    parser.add_argument("yaml", nargs="?", metavar="SEARCH.yaml", help="what to search, see search_spaces/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the YAML, e.g. optim.samples=2000 or budget.trials=20; may be repeated",
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything and print the plan, start nothing")
    parser.add_argument("--probe", action="store_true", help="measure a few steps first: speed, memory, hours, cost")
    parser.add_argument("--smoke", action="store_true", help="run every branch of the space once, in seconds each")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="continue the study in the folder RUN, by default the YAML's newest",
    )
    parser.add_argument("--extend", type=read_count, default=0, metavar="N", help="run N more trials of a study")
    parser.add_argument(
        "--reconcile", action="store_true", help="close the MLflow runs that a killed driver left running, and end"
    )
    options = parser.parse_args(arguments)
    if options.yaml is None and (options.resume or "").endswith((".yaml", ".yml")):
        options.yaml, options.resume = options.resume, ""  # `--resume SEARCH.yaml`
    if options.smoke and (options.resume is not None or options.extend):
        parser.error("--smoke starts a study of its own; leave --resume and --extend out")
    if options.probe and (options.resume is not None or options.extend):
        parser.error("--probe measures before a study is started; leave --resume and --extend out")
    return options


if __name__ == "__main__":
    sys.exit(main())

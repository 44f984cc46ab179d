"""Put the recipe's claims to the test: ``python -m tune.claims SEARCH.yaml``.

Trains the baseline, alpha = 1, batch 16 and chunk 30, each alone and together, to the full budget with
the same seeds, and says of each claim whether it is supported, not supported or undecided. Exit code 0
when all trainings are done, 2 on bad input, 1 otherwise.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvla_core.command import FAILED, OK, Parser, answer, python_command
from smolvla_core.errors import ConfigError
from tune import driver
from tune.console import Say, counted, say_line
from tune.effects import OBJECTIVE, PRECISION, Effect, fall, saving
from tune.fixed_runs import SEED, FixedRuns, Run
from tune.intervals import Interval, percent
from tune.packing import resources_of
from tune.ray_session import Brake, concurrency, ray_session
from tune.records import Records, TrialRecord
from tune.resume import state_storage
from tune.run_folder import new_folder, stored_spec, write_specification, write_whole
from tune.space import base_values, warm_starts
from tune.spec import Resources, SearchSpec, load_spec
from tune.summary import BASELINE
from tune.tracking import NullTracker
from tune.trainable import Trainable, smolvla_trainable

SUFFIX = "-claims"
"""Of the study's name, so that its folder is no study's that a search would resume."""
CLAIMS_FILE, TABLE_FILE, PLAN_FILE = "claims.json", "claims.md", "claims_plan.json"
STARTING_POINT = {
    "weighting.scheme": "temporal",
    "weighting.alpha": 0.0,
    "optim.batch_size": 8,
    "policy.chunk_size": 50,
}
CHANGES: dict[str, dict[str, Any]] = {
    "alpha 1": {"weighting.alpha": 1.0},
    "batch 16": {"optim.batch_size": 16},
    "chunk 30": {"policy.chunk_size": 30},
}
TOGETHER = "together"


@dataclass(frozen=True)
class Claim:
    """What the recipe promises: at least ``promised``, as a share."""

    key: str
    words: str
    measured: str
    promised: float


CLAIMS = (
    Claim("hard segments", "+15-25 % on hard segments", f"fall of {OBJECTIVE}", 0.15),
    Claim("convergence, samples", "+10 % convergence", "samples saved to the baseline's final error", 0.10),
    Claim("convergence, seconds", "+10 % convergence", "seconds saved to the baseline's final error", 0.10),
    Claim("precision", "+8 % precision", f"fall of {PRECISION}", 0.08),
)
SUCCESS = {"claim": "success 60 to 75-80 %", "verdict": "not measured", "note": "no closed loop"}


def variants(spec: SearchSpec) -> dict[str, dict[str, Any]]:
    """Name -> values by dotted key: the baseline, each change alone, all together."""
    points = warm_starts(spec)
    start = {**points.get(BASELINE, next(iter(points.values()), {})), **STARTING_POINT}
    every = {key: value for change in CHANGES.values() for key, value in change.items()}
    return {BASELINE: start, **{name: start | change for name, change in CHANGES.items()}, TOGETHER: start | every}


def verdict(effect: Effect, promised: float) -> str:
    """``supported``, ``not supported`` or ``undecided``.

    Supported: the whole interval is above 0 and the estimate is at least what is promised. Not
    supported: the whole interval is below what is promised. Else undecided, and where an estimate is
    an upper bound it supports nothing.
    """
    value = effect.value
    if value is None:
        return "not measured"
    if value.low is None or value.high is None:
        return "undecided"
    if value.high < promised:
        return "not supported"
    return "supported" if value.low > 0 and value.mean >= promised and not effect.at_most else "undecided"


def evaluated(spec: SearchSpec, records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """A row for each change and claim, from the trainings that are complete with the same seeds as the baseline's."""
    runs: dict[str, dict[int, TrialRecord]] = {name: {} for name in variants(spec)}
    for record in records:
        if record.outcome is not None and record.outcome.state == "complete" and record.name in runs:
            runs[record.name][int(record.params[SEED])] = record
    rows = []
    for name in (*CHANGES, TOGETHER):
        seeds = sorted(set(runs[name]) & set(runs[BASELINE]))
        pair = [[runs[each][seed] for seed in seeds] for each in (name, BASELINE)]
        for claim in CLAIMS:
            effect = _effect(claim, *pair) if seeds else Effect(None, "no pair of trainings is complete")
            rows.append(
                {
                    "change": name,
                    "claim": claim.words,
                    "measured": claim.measured,
                    "promised": claim.promised,
                    "seeds": len(seeds),
                    "effect": effect.value.to_dict() if effect.value else None,
                    "at_most": effect.at_most,
                    "verdict": verdict(effect, claim.promised),
                    "note": effect.note,
                }
            )
    return rows


def _effect(claim: Claim, changed: Sequence[TrialRecord], baseline: Sequence[TrialRecord]) -> Effect:
    if claim.key.startswith("convergence"):
        return saving(changed, baseline, seconds=claim.key.endswith("seconds"))
    return fall(changed, baseline, OBJECTIVE if claim.key == "hard segments" else PRECISION)


def table_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rows as a Markdown table."""
    yield "| change | claim | measured as | effect | seeds | verdict |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        effect = row["effect"]
        text = f"{'at most ' if row['at_most'] else ''}{percent(Interval(**effect))}" if effect else "-"
        note = f" ({row['note']})" if row["note"] else ""
        yield (
            f"| {row['change']} | {row['claim']} | {row['measured']} | {text} | {row['seeds']} | "
            f"{row['verdict']}{note} |"
        )
    yield f"| {TOGETHER} | {SUCCESS['claim']} | eggs placed | - | 0 | {SUCCESS['verdict']}: {SUCCESS['note']} |"


@dataclass(frozen=True)
class Trainings:
    """The trainings that the claims are judged by.

    Attributes:
        spec: of the search whose data, policy and budget are taken.
        folder: of the results.
        seeds: trainings of each variant.
        points: evaluations of each training, evenly spaced, the last at its end.
    """

    spec: SearchSpec
    folder: Path
    seeds: int
    points: int
    trainable: Trainable = smolvla_trainable
    say: Say = say_line

    def runs(self) -> list[Run]:
        """Every variant with its first seed, then with its second."""
        first = int(base_values(self.spec)[SEED])
        return [
            Run(name, {**values, SEED: first + number})
            for number in range(self.seeds)
            for name, values in variants(self.spec).items()
        ]

    def fixed(self, resources: Resources) -> FixedRuns:
        """How they are run, each with these resources."""
        samples = self.spec.samples
        at = sorted({max(1, round(samples * point / self.points)) for point in range(1, self.points)})
        return FixedRuns(
            spec=self.spec,
            resources=resources,
            records=Records(self.folder),
            tracker=NullTracker(),
            trainable=self.trainable,
            say=self.say,
            storage=state_storage(self.spec, self.folder),
            noun="training",
            shared={"eval.at": at},
        )

    def run(self) -> tuple[list[dict[str, Any]], bool]:
        """Train what is missing, and judge; whether all is done."""
        brake = Brake(None)
        with ray_session():
            resources, _ = resources_of(self.spec)
            limit = concurrency(resources, self.spec.max_concurrent)
            driver.hold(self.folder)
            try:
                session = Records(self.folder).start_session()
                records = self.fixed(resources).run(
                    self.runs(), session=f"session_{session:03d}", limit=limit, brake=brake
                )
            finally:
                driver.release(self.folder)
        rows = evaluated(self.spec, records)
        whole = len(records) == len(self.runs()) and all(r.outcome and r.outcome.state == "complete" for r in records)
        document = {"rows": rows, "success": SUCCESS, "seeds": self.seeds, "samples": self.spec.samples}
        write_whole(self.folder / CLAIMS_FILE, json.dumps(document, indent=2) + "\n")
        write_whole(self.folder / TABLE_FILE, "\n".join(table_lines(rows)) + "\n")
        return rows, whole


def main(arguments: list[str] | None = None) -> int:
    """The command line; see ``--help``."""
    options = _parse(arguments)
    return answer(lambda: _command(options))


def _command(options: argparse.Namespace) -> int:
    trainings = _resumed(Path(options.resume)) if options.resume else _new(options)
    runs = trainings.runs()
    print(
        f"{counted(len(runs), 'training')}: {', '.join(variants(trainings.spec))}; {counted(trainings.seeds, 'seed')} "
        f"each, {trainings.spec.samples:,} samples, {trainings.points} evaluations\nResults    {trainings.folder}",
        flush=True,
    )
    if options.dry_run:
        return OK
    rows, whole = trainings.run()
    print("\n" + "\n".join(table_lines(rows)), flush=True)
    if not whole:
        print(
            f"Not all trainings are complete; go on with  {python_command()} -m tune.claims --resume {trainings.folder}"
        )
    return OK if whole else FAILED


def _new(options: argparse.Namespace) -> Trainings:
    if options.yaml is None:
        raise ConfigError("give a search's YAML, e.g. search_spaces/easter_eggs.yaml")
    found, source = load_spec(options.yaml, options.set)
    spec = SearchSpec.from_dict(
        found.to_dict() | {"study": f"{found.study}{SUFFIX}", "finalists": None, "closed_loop": None}
    )
    trainings = Trainings(spec, new_folder(spec), options.seeds, options.points)
    print("Checking the data and every variant ...", flush=True)
    facts = _checked(trainings)
    if not options.dry_run:
        write_specification(trainings.folder, spec, source.text, facts)
        write_whole(trainings.folder / PLAN_FILE, json.dumps({"seeds": options.seeds, "points": options.points}))
    return trainings


def _resumed(folder: Path) -> Trainings:
    plan = folder / PLAN_FILE
    if not plan.is_file():
        raise ConfigError(f"--resume: {folder} holds no {PLAN_FILE}; give the folder that an earlier call has named")
    return Trainings(stored_spec(folder), folder.absolute(), **json.loads(plan.read_text(encoding="utf-8")))


def _checked(trainings: Trainings) -> Mapping[str, Any]:
    """Resolve every variant against the data; what identifies the data.

    Raises:
        UserError: at the first mistake.
    """
    from smolvla_core.data.dataset import fingerprint
    from smolvla_core.trial import resolve
    from tune.spec_checks import check_data

    check_data(trainings.spec)
    fixed = trainings.fixed(trainings.spec.resources)
    configs = [fixed.config(run.params) for run in trainings.runs()[: len(variants(trainings.spec))]]
    for config in configs:
        resolve(config)
    return fingerprint(configs[0].data)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tune.claims", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("yaml", nargs="?", metavar="SEARCH.yaml", help="whose data, policy and budget are taken")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for tune.run")
    parser.add_argument("--seeds", type=_count, default=3, help="trainings of each variant (default: %(default)s)")
    parser.add_argument("--points", type=_count, default=10, help="evaluations of each training (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="check everything and say what will be done")
    parser.add_argument("--resume", metavar="RUN", help="go on in the folder RUN")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

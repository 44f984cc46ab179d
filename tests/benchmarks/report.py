"""The tables of the searchers' comparison."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tests.benchmarks.comparison import (
    Interval,
    Problem,
    Steps,
    curve,
    geometric_mean,
    interquartile_mean,
    interval,
    problem,
    ratio_to,
    regret_at,
)

FRACTIONS = (0.05, 0.15, 0.3, 0.5, 1.0)
REFERENCES = ("stock", "random")


def print_tables(runs: Sequence[dict[str, Any]], budget: int, measure: str = "chosen") -> None:
    """Regret against epochs, epochs to the references' final results, and regret in every cell.

    Only problems that every method has tried are counted.

    Args:
        runs: lines of the results.
        budget: epochs of a run.
        measure: which of ``simulator.Track``'s.
    """
    by_method: dict[str, dict[Problem, Steps]] = {}
    trials: dict[str, list[int]] = {}
    for run in runs:
        by_method.setdefault(run["method"], {})[problem(run)] = run[measure]
        trials.setdefault(run["method"], []).append(run["trials"])
    common = set.intersection(*(set(tries) for tries in by_method.values())) if by_method else set()
    if not common:
        print("no problem that all methods have tried")
        return
    by_method = {name: {key: tries[key] for key in sorted(common)} for name, tries in by_method.items()}
    seeds = len({key[-1] for key in common})
    print(f"\n{len(common)} runs a method, {seeds} seeds, {budget} epochs")
    print("\ninterquartile mean of the normalised regret after so many epochs")
    _table(
        ["method", "trials", *(f"{fraction * budget:.0f}" for fraction in FRACTIONS)],
        (
            [name, round(float(np.mean(trials[name]))), *(_regret(tries, f * budget) for f in FRACTIONS)]
            for name, tries in by_method.items()
        ),
    )
    for reference in REFERENCES:
        if reference in by_method:
            _print_epochs_to(by_method, reference, budget)
    _print_cells(by_method, budget)


def _print_epochs_to(by_method: dict[str, dict[Problem, Steps]], reference: str, budget: int) -> None:
    target = by_method[reference]
    print(f"\nepochs to {reference}'s final result, divided by {reference}'s own")
    _table(
        ["method", "geometric mean of pairs", "of the mean curves"],
        (
            [name, interval(ratios, geometric_mean), f"{_curves_ratio(tries, target, budget):.3f}"]
            for name, tries in by_method.items()
            if (ratios := ratio_to(tries, target, target, budget))
        ),
    )


def _curves_ratio(tries: dict[Problem, Steps], target: dict[Problem, Steps], budget: int) -> float:
    """When the interquartile mean over the common problems passes the reference's last one, in budgets."""
    common = sorted(tries.keys() & target.keys())
    epochs = np.linspace(0, budget, 401)[1:]
    final = curve([target[key] for key in common], [budget])[0]
    ours = curve([tries[key] for key in common], epochs)
    theirs = curve([target[key] for key in common], epochs)
    return _first(ours <= final, epochs, budget) / _first(theirs <= final, epochs, budget)


def _first(reached: np.ndarray, epochs: np.ndarray, budget: int) -> float:
    return float(epochs[np.argmax(reached)]) if reached.any() else float(budget)


def _print_cells(by_method: dict[str, dict[Problem, Steps]], budget: int) -> None:
    cells = sorted({key[1:4] for tries in by_method.values() for key in tries})
    print("\nin every cell: interquartile mean of the regret at the full budget")
    rows = []
    for cell in cells:
        row: list[Any] = list(cell)
        for tries in by_method.values():
            last = [regret_at(steps, budget) for key, steps in tries.items() if key[1:4] == cell]
            row.append(f"{interquartile_mean(np.array(last)):.3f}" if last else "-")
        rows.append(row)
    _table(["metric", "grace", "reduction", *by_method], rows)


def _regret(tries: dict[Problem, Steps], epochs: float) -> Interval:
    return interval({key: regret_at(steps, epochs) for key, steps in tries.items()}, interquartile_mean)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a Markdown table."""
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")

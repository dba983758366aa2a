#!/usr/bin/env python
"""Tell how many seeds show a difference of the EER, and what they cost.

python scripts/study_power.py                             # spread of the small-scale study
python scripts/study_power.py runs/studies/my_study --set itw --effect 1.49

A study compares two methods by the difference of their EER with the same seeds, on the same clips. Two things move it:
other seeds, and other clips. From a study's results, the first table has the spread of both, and the smallest
difference that --seeds seeds show. Seeds show a difference if 80 % of such studies find it (paired t-test, two-sided, 5
%). The second table says how many seeds show a certain difference on another set, for several spreads over seeds, and
how long they take to train. The number of clips limits what any number of seeds can show. The error from clips is
scaled to a set of another size and error rate.

The defaults are the paper's largest gain, 7.97 to 6.48 % on In-the-Wild (19,963 bona fide and 11,816 spoofed clips),
and what a run with its recipe costs on an H100: 2.85 updates per second, 5,076 updates per epoch of ASVspoof 2019 LA.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from hf_gradalign.cli.commands import run_command
from hf_gradalign.study.comparison import PairedBootstrap, StudyResults, baseline_of
from hf_gradalign.study.tables import StudyTables
from hf_gradalign.utils.messages import error_line

MOST_SEEDS = 200


class Spread(NamedTuple):
    """The spread of the differences between a method and its baseline on a set, in points of EER."""

    title: str
    evaluation_set: str
    n_seeds: int
    mean: float
    over_seeds: float
    over_clips: float


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="docs/small_scale", help="folder of a study (docs/small_scale)")
    parser.add_argument("--set", help="only this evaluation set")
    parser.add_argument("--methods", nargs="+", default=["pcgrad"], help="methods to compare with dual path (pcgrad)")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of the smallest difference (20)")
    parser.add_argument("--effect", type=float, default=1.49, help="difference to show, in points of EER (1.49)")
    parser.add_argument("--eer", type=float, default=7.97, help="EER of the baseline on the set to use, in %% (7.97)")
    parser.add_argument("--bonafide", type=int, default=19963, help="bona fide clips of that set (19963)")
    parser.add_argument("--spoof", type=int, default=11816, help="spoofed clips of that set (11816)")
    parser.add_argument("--spreads", nargs="+", type=float, default=[0.5, 1.0, 1.5, 2.0, 3.0], help="in points")
    parser.add_argument("--updates_per_second", type=float, default=2.85)
    parser.add_argument("--updates_per_epoch", type=int, default=5076)
    parser.add_argument("--epochs", type=int, default=15, help="of a run, with its patience (15)")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap over clips (1000)")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Print both tables and return the exit status."""
    arguments = parse(argv)
    try:
        require_possible(arguments)
        results = StudyResults(StudyTables(arguments.study))
        print(
            "| comparison with dual path | set | seeds | difference | spread over seeds | error from the clips | "
            f"{arguments.seeds} seeds show |"
        )
        print("|---|---|---|---|---|---|---|")
        shares = []
        for spread in spreads_of(results, arguments.methods, arguments.set, arguments.draws):
            print(
                f"| {spread.title} | {spread.evaluation_set} | {spread.n_seeds} | {spread.mean:+.2f} | "
                f"{spread.over_seeds:.2f} | {spread.over_clips:.2f} | "
                f"{smallest_effect(arguments.seeds, spread.over_seeds, spread.over_clips):.2f} |"
            )
            shares.append(relative_clip_error(spread, results))
    except (ValueError, OSError) as error:
        print(error_line(error, Path(arguments.study)), file=sys.stderr)
        return 2
    if not shares:
        print(f"{arguments.study} has no comparison of {', '.join(arguments.methods)} with dual path", file=sys.stderr)
        return 2
    share = float(np.median(shares))
    clip_error = share * binomial_error(arguments.eer, arguments.bonafide, arguments.spoof)
    print(
        f"\nThe error from the clips is {share:.2f} (median) of that of two independent systems. On a set with "
        f"{arguments.bonafide:,} bona fide and {arguments.spoof:,} spoofed clips and an EER of {arguments.eer:g} %, it "
        f"would be {clip_error:.2f} points.\n"
    )
    hours = arguments.epochs * arguments.updates_per_epoch / arguments.updates_per_second / 3600
    print(f"To show {arguments.effect:g} points ({hours:.1f} hours per run of {arguments.epochs} epochs):\n")
    print("| spread over seeds | seeds | runs | hours |")
    print("|---|---|---|---|")
    for over_seeds in arguments.spreads:
        n_seeds = seeds_needed(arguments.effect, over_seeds, clip_error)
        if n_seeds is None:
            print(f"| {over_seeds:g} | more than {MOST_SEEDS}, or never: use more clips | | |")
        else:
            print(f"| {over_seeds:g} | {n_seeds} | {2 * n_seeds} | {2 * n_seeds * hours:,.0f} |")
    return 0


def require_possible(arguments: argparse.Namespace) -> None:
    """Raise ValueError if an option has an impossible value."""
    if arguments.seeds < 2:
        raise ValueError("--seeds must be at least 2")
    if not 0 < arguments.eer < 100:
        raise ValueError(f"--eer must be between 0 and 100 %, not {arguments.eer:g}")
    positive = ("effect", "bonafide", "spoof", "spreads", "updates_per_second", "updates_per_epoch", "epochs")
    for name in positive:
        if np.min(getattr(arguments, name)) <= 0:
            raise ValueError(f"--{name} must be more than 0")


def spreads_of(
    results: StudyResults, methods: Sequence[str], only: str | None = None, n_draws: int = 1000
) -> Iterator[Spread]:
    """Yield the spread of every comparison of a method with dual path that has at least two seeds."""
    for name in results.evaluation_sets if only is None else [only]:
        if name not in results.clips:
            raise ValueError(f"the study has no evaluation set {name}; it has {', '.join(results.evaluation_sets)}")
        bootstrap = PairedBootstrap(results.clips[name], n_draws=n_draws)
        for condition, groups in results.groups.items():
            for group in groups:
                baseline = baseline_of(group, groups)
                if group.method not in methods or baseline is None:
                    continue
                ours, theirs = group.values(name), baseline.values(name)
                differences = 100 * np.array([ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()])
                if len(differences) < 2:
                    continue
                yield Spread(
                    f"{group.title}, {condition.title}",
                    name,
                    len(differences),
                    float(differences.mean()),
                    float(differences.std(ddof=1)),
                    100 * bootstrap.clip_error(group, baseline, name),
                )


def relative_clip_error(spread: Spread, results: StudyResults) -> float:
    """Return the error from the clips, relative to that of two independent systems with the study's mean EER.

    Raises:
        ValueError: If that is 0.
    """
    labels = results.clips[spread.evaluation_set].labels
    rates = [
        rate
        for groups in results.groups.values()
        for group in groups
        for rate in group.values(spread.evaluation_set).values()
    ]
    if not any(rates):
        raise ValueError(f"no model makes errors on {spread.evaluation_set}, so it tells nothing: choose another --set")
    n_bonafide = int(labels.sum())
    return spread.over_clips / binomial_error(100 * float(np.mean(rates)), n_bonafide, len(labels) - n_bonafide)


def binomial_error(eer: float, n_bonafide: int, n_spoof: int) -> float:
    """Return the standard error in points of the difference between two independent systems with this EER in %.

    At the threshold of the EER, both error rates are binomial, and the EER moves by about their mean.
    """
    rate = eer / 100
    return 100 * math.sqrt(2 * rate * (1 - rate) / 4 * (1 / n_bonafide + 1 / n_spoof))


def power(effect: float, n_seeds: int, over_seeds: float, clip_error: float = 0.0, level: float = 0.05) -> float:
    """Return the probability that a paired t-test over seeds shows a difference, given both spreads."""
    error = math.sqrt(over_seeds**2 / n_seeds + clip_error**2)
    critical = stats.t.ppf(1 - level / 2, n_seeds - 1)
    away = effect / error
    return float(stats.nct.sf(critical, n_seeds - 1, away) + stats.nct.cdf(-critical, n_seeds - 1, away))


def smallest_effect(n_seeds: int, over_seeds: float, clip_error: float = 0.0, wanted: float = 0.8) -> float:
    """Return the smallest difference that is shown with this power."""
    enough = math.sqrt(over_seeds**2 / n_seeds + clip_error**2)
    while power(enough, n_seeds, over_seeds, clip_error) < wanted:
        enough *= 2
    return optimize.brentq(lambda effect: power(effect, n_seeds, over_seeds, clip_error) - wanted, 0, enough)


def seeds_needed(effect: float, over_seeds: float, clip_error: float = 0.0, wanted: float = 0.8) -> int | None:
    """Return the fewest seeds with this power; None if even 200 do not reach it."""
    counts = range(2, MOST_SEEDS + 1)
    return next((n for n in counts if power(effect, n, over_seeds, clip_error) >= wanted), None)


if __name__ == "__main__":
    run_command(main)

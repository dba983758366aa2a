#!/usr/bin/env python
"""Time a bootstrap of the equal error rate, compared with a plain implementation.

python scripts/benchmark_metrics.py
python scripts/benchmark_metrics.py --clips 100000 --draws 200 --json metrics.json

The plain way copies the clips of each draw, sorts them and computes the rate. Both alternate, a few draws each, and
ratios are taken within each round, so that other load on the machine affects both. Whole bootstraps from scores to
interval are timed as well: of the rate, of all metrics, and over speakers.
"""

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_step import print_table, spread
from numpy.typing import NDArray
from step_cost.measuring import interleaved_times

from hf_gradalign.metrics import METRICS, bootstrap_intervals, decision_metrics
from hf_gradalign.metrics.stats.bootstrap import SampleValues, UtteranceDraws, draw_order

N_SPEAKERS = 1000


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables and return the exit status."""
    options = parse(words)
    scores, labels, speakers = make_scores(options.clips, options.seed)
    ours, plain = Counting(scores, labels, options.seed), Copying(scores, labels, options.seed)
    times = interleaved_times(
        {"counts": lambda: ours.draw(options.block), "copies": lambda: plain.draw(options.block)}, options.rounds, 1
    )
    ratios = [copies / counts for copies, counts in zip(times["copies"], times["counts"], strict=True)]
    whole = {
        "EER": timed(lambda: bootstrap_intervals("eer", scores, labels, n_draws=options.draws)),
        "EER, over speakers": timed(
            lambda: bootstrap_intervals("eer", scores, labels, n_draws=options.draws, clusters=speakers)
        ),
        "all metrics": timed(
            lambda: bootstrap_intervals(
                [*METRICS.values(), *decision_metrics(1.0)], scores, labels, n_draws=options.draws
            )
        ),
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.clips} scores, {options.draws} draws; peak of the whole process {peak:.0f} MiB.")
    print_table(["bootstrap of", "seconds"], [[name, f"{seconds:.1f}"] for name, seconds in whole.items()])
    rows = [
        [name, spread([1000 * seconds / options.block for seconds in times[key]], digits=1)]
        for key, name in (("counts", "counts of ranked scores (this package)"), ("copies", "copies, sorted each time"))
    ]
    print_table(["a draw of the EER", "milliseconds, median (and quartiles)"], rows)
    print(f"\ncopies / counts, round by round: {spread(ratios, digits=1)}")
    print(
        f"standard error by counts {np.std(ours.values):.6f}, by copies {np.std(plain.values):.6f} "
        f"({len(ours.values)} draws each)"
    )
    if options.json:
        results = {
            "options": {name: value for name, value in vars(options).items() if name != "json"},
            "machine": {"platform": platform.platform(), "numpy": np.__version__},
            "seconds": whole,
            "seconds_by_round": times,
            "ratios": ratios,
            "peak_mib": peak,
        }
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=600_000)
    parser.add_argument("--draws", type=int, default=1000, help="draws of the whole bootstraps")
    parser.add_argument("--block", type=int, default=5, help="draws per timed block")
    parser.add_argument("--rounds", type=int, default=10, help="blocks of each way, 2 or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write all measurements to this file")
    options = parser.parse_args(words)
    if options.rounds < 2:
        parser.error("--rounds must be 2 or more, or there is no spread to give")
    return options


def make_scores(clips: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.str_]]:
    """Scores with six digits, a fifth of them bona fide, and speakers; the EER is about 10 %."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(clips) < 0.2).astype(np.int64)
    scores = np.round(generator.normal(size=clips) + 2.56 * labels, 6)
    return scores, labels, generator.integers(0, N_SPEAKERS, clips).astype(str)


class Counting:
    """The package's way: a draw is a count per score, and scores are ranked once."""

    def __init__(self, scores: NDArray, labels: NDArray, seed: int) -> None:
        order = draw_order(scores, labels)
        self._draws = UtteranceDraws(labels[order], seed)
        self._values = SampleValues("eer", scores[order], labels[order])
        self.values: list[float] = []

    def draw(self, n: int) -> None:
        """Take `n` draws."""
        self.values += [float(self._values(self._draws(len(self.values) + k))[0]) for k in range(n)]


class Copying:
    """The plain way: copy each class' clips, sort all of them, find the nearest point of the curve."""

    def __init__(self, scores: NDArray, labels: NDArray, seed: int) -> None:
        self._classes = scores[labels == 1], scores[labels == 0]
        self._generator = np.random.default_rng(seed)
        self.values: list[float] = []

    def draw(self, n: int) -> None:
        """Take `n` draws."""
        for _ in range(n):
            bonafide, spoof = (self._generator.choice(scores, len(scores)) for scores in self._classes)
            is_bonafide = np.arange(len(bonafide) + len(spoof)) < len(bonafide)
            is_bonafide = is_bonafide[np.argsort(np.concatenate([bonafide, spoof]), kind="stable")]
            rejected = np.cumsum(is_bonafide)
            frr = rejected / len(bonafide)
            far = 1 - (np.arange(1, len(is_bonafide) + 1) - rejected) / len(spoof)
            nearest = np.argmin(np.abs(frr - far))
            self.values.append(float(frr[nearest] + far[nearest]) / 2)


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())

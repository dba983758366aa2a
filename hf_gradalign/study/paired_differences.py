"""Differences between two arms of a study that share seeds and evaluation clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hf_gradalign.metrics import RankedScores
from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.stats.bootstrap import draw_order, make_draws, require_settings
from hf_gradalign.study.arms import Arm, Clips

_MOST_EXACT = 13  # seeds whose signs are all gone through by the signed-rank test


@dataclass(frozen=True)
class Difference:
    """An arm's equal error rate minus its baseline's, as fractions.

    Attributes:
        mean: Over the seeds that both have.
        low: Lower end of the interval.
        high: Upper end.
        p_value: Of Wilcoxon's signed-rank test over seeds, two-sided; None with fewer than two seeds.
        n_seeds: How many seeds.
    """

    mean: float
    low: float
    high: float
    p_value: float | None
    n_seeds: int

    @property
    def verdict(self) -> str:
        """`lower`, `higher`, or `noise` where the interval holds zero."""
        return "noise" if self.low <= 0 <= self.high else ("lower" if self.mean < 0 else "higher")


class PairedBootstrap:
    """Bootstrap of differences over utterances and seeds.

    In every draw the clips of each class (or speakers, ...) are drawn with replacement, the same for all arms and
    seeds, and the seeds of a comparison too; the difference is the mean over the drawn seeds. Utterances alone would
    say how the same two trained models differ on other clips, seeds alone how other trainings do on these clips.

    Args:
        clips: The evaluation set.
        n_draws: Draws.
        over: "utterance", or the column of the clips that says which belong together.
        confidence: Of the percentile interval.
        seed: The draws'.

    Raises:
        StudyError: If the clips have no such column.
        ValueError: If the number of draws or the confidence is out of range, or clips come in fewer than two groups.
    """

    def __init__(
        self, clips: Clips, *, n_draws: int = 1000, over: str = "utterance", confidence: float = 0.95, seed: int = 0
    ) -> None:
        require_settings(n_draws, confidence)
        self._labels = clips.labels
        self._clusters: Sequence[Any] | None = None if over == "utterance" else clips.column(over)
        self._n_draws = n_draws
        self._tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        self._seed = seed
        self._drawn: dict[str, NDArray[np.float64]] = {}

    def compare(self, arm: Arm, baseline: Arm, evaluation_set: str) -> Difference | None:
        """An arm against its baseline; None if no seed is in both."""
        ours, theirs = arm.values(evaluation_set), baseline.values(evaluation_set)
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            return None
        observed = np.array([ours[seed] - theirs[seed] for seed in seeds])
        drawn = np.array(
            [self._rates(arm, seed, evaluation_set) - self._rates(baseline, seed, evaluation_set) for seed in seeds]
        )
        generator = np.random.default_rng(self._seed)
        chosen = generator.integers(0, len(seeds), (len(seeds), self._n_draws))
        means = np.take_along_axis(drawn, chosen, axis=0).mean(axis=0)
        low, high = np.nanquantile(means, self._tails)
        return Difference(float(observed.mean()), float(low), float(high), signed_rank_p(observed), len(seeds))

    def _rates(self, arm: Arm, seed: int, evaluation_set: str) -> NDArray[np.float64]:
        cell = arm.cells[seed]
        if cell not in self._drawn:
            scores = np.array(arm.results[seed][evaluation_set]["scores"], dtype=float)
            there = np.isfinite(scores)
            # Clips are counted in one order for all cells, so that all see the same draws.
            order = draw_order(np.zeros(len(scores)), self._labels)
            draws = make_draws(self._labels, self._clusters, self._seed, order)
            kept = there[order]
            ranked = RankedScores(scores[order][kept], self._labels[order][kept])
            rates = np.full(self._n_draws, np.nan)
            for number in range(self._n_draws):
                counted = ranked.counted(draws(number)[kept])
                if counted.has_both_classes:
                    rates[number] = official_equal_error(counted).rate
            self._drawn[cell] = rates
        return self._drawn[cell]


def signed_rank_p(differences: NDArray[np.float64]) -> float | None:
    """The two-sided p-value of Wilcoxon's signed-rank test, exact for up to 13 differences, ties among them or not."""
    if len(differences) < 2:
        return None
    differences = np.round(differences, 12)  # equal rates differ by rounding alone
    if not differences.any():
        return 1.0
    method = stats.PermutationMethod() if len(differences) <= _MOST_EXACT else "auto"
    return float(stats.wilcoxon(differences, method=method).pvalue)


__all__ = ["Difference", "PairedBootstrap", "signed_rank_p"]

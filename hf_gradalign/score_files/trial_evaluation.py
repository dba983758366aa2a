"""All that is said of a speaker verifier that has to reject spoofs too."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.metrics import (
    ASVSPOOF5_AGNOSTIC_COSTS,
    MEASURES,
    Interval,
    bootstrap_intervals,
    min_agnostic_detection_cost,
)
from hf_gradalign.score_files.clips import Clips
from hf_gradalign.score_files.errors import ScoreFileError
from hf_gradalign.score_files.results import Evaluation, Row, Settings, clusters_of


def evaluate_trials(clips: Clips, settings: Settings | None = None) -> Evaluation:
    """Evaluate a speaker verifier that has to reject spoofs too: a-DCF, and equal error rates against each.

    Args:
        clips: With scores and trial types.
        settings: What to compute; a countermeasure's threshold, verifier and columns do not apply.

    Raises:
        ScoreFileError: If there are no scores or no trial types.
        ValueError: As `min_agnostic_detection_cost`.
    """
    settings = settings or Settings()
    scores, types = clips.scores, clips.trial_types
    if scores is None or types is None:
        raise ScoreFileError(f"{clips.source} has not both scores and trial types (target, nontarget, spoof).")
    intervals: Mapping[str, Interval] = {}
    if settings.n_draws:
        intervals = bootstrap_intervals(
            list(_METRICS),
            scores,
            types,
            clusters=clusters_of(clips, settings),
            n_draws=settings.n_draws,
            confidence=settings.confidence,
            seed=settings.seed,
        )
    rows = {
        metric.__name__: Row(title, metric(scores, types), intervals.get(metric.__name__), is_percentage)
        for metric, (title, is_percentage) in _METRICS.items()
    }
    n_spoof = int(np.count_nonzero(types == "spoof"))
    return Evaluation(clips.source, len(clips) - n_spoof, n_spoof, rows, None, settings, notes=list(clips.notes))


def a_dcf(scores: NDArray[np.float64], types: NDArray[np.str_]) -> float:
    """Minimum a-DCF with the paper's costs."""
    return min_agnostic_detection_cost(scores, types)["a_dcf"]


def a_dcf_asvspoof5(scores: NDArray[np.float64], types: NDArray[np.str_]) -> float:
    """Minimum a-DCF with the costs of ASVspoof 5, track 2."""
    return min_agnostic_detection_cost(scores, types, costs=ASVSPOOF5_AGNOSTIC_COSTS)["a_dcf"]


def sasv_eer(scores: NDArray[np.float64], types: NDArray[np.str_]) -> float:
    """Equal error rate of targets against all others (SASV challenge 2022)."""
    return MEASURES["eer"](scores, (types == "target").astype(int))


def sv_eer(scores: NDArray[np.float64], types: NDArray[np.str_]) -> float:
    """Equal error rate of targets against non-targets."""
    return sasv_eer(scores[types != "spoof"], types[types != "spoof"])


def spf_eer(scores: NDArray[np.float64], types: NDArray[np.str_]) -> float:
    """Equal error rate of targets against spoofs."""
    return sasv_eer(scores[types != "nontarget"], types[types != "nontarget"])


_METRICS: dict[Callable[[NDArray, NDArray], float], tuple[str, bool]] = {
    a_dcf: ("min a-DCF", False),
    a_dcf_asvspoof5: ("min a-DCF (ASVspoof 5)", False),
    sasv_eer: ("SASV-EER", True),
    sv_eer: ("SV-EER", True),
    spf_eer: ("SPF-EER", True),
}

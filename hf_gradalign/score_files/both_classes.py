"""One score from those of both classes: a pipeline's best two, or the two outputs of a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.score_files.clips import Clips

_ROUNDING = 2e-3  # probabilities with three decimals


def of_both_classes(bonafide: NDArray[np.float64], spoof: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of bona fide where both scores add up to 1 (or 100), else bona fide minus spoof, as for logits.

    Args:
        bonafide: One score per clip, shape (clips,).
        spoof: Likewise.
    """
    for whole in (1.0, 100.0):
        is_share = (np.abs(bonafide + spoof - whole) <= _ROUNDING * whole).all()
        if is_share and min(bonafide.min(), spoof.min()) >= 0:
            return bonafide / whole
    return bonafide - spoof


def of_pairs(clips: Clips) -> Clips | None:
    """The clips of a file that has two lines per utterance, one for each class with its score; None for any other.

    Args:
        clips: With verdicts, the class that each line's score is of.
    """
    n_clips = len(clips) // 2
    labels = clips.verdicts.labels
    if len(clips) % 2 or np.count_nonzero(labels == 1) != n_clips or not clips.verdicts.are_known:
        return None
    codes = clips.utterance_ids.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((labels, codes))  # of each utterance spoof, then bona fide
    spoof, bonafide = order[0::2], order[1::2]
    if (codes[spoof] != codes[bonafide]).any() or labels[spoof].any() or len(np.unique(codes)) != n_clips:
        return None
    order = np.argsort(np.minimum(spoof, bonafide))  # as the file has them
    spoof, bonafide = spoof[order], bonafide[order]
    scores = of_both_classes(clips.scores[bonafide], clips.scores[spoof])
    note = f"{clips.source} has a line for each class of an utterance: they were brought together to one score."
    kept = clips.at(bonafide)
    return replace(kept, scores=scores, labels=None, verdicts=None, notes=(*clips.notes, note))

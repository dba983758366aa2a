"""Scores for property tests, and slow but obvious implementations of their metrics."""

from fractions import Fraction

from hypothesis import assume
from hypothesis import strategies as st

finite = st.floats(-1e6, 1e6, allow_nan=False)
few_values = st.integers(-3, 3)


@st.composite
def scored_clips(draw, values=finite, unique=False, max_size=40):
    """Scores and labels with both classes and more than one score."""
    scores = draw(st.lists(values, min_size=2, max_size=max_size, unique=unique))
    labels = draw(st.lists(st.integers(0, 1), min_size=len(scores), max_size=len(scores)))
    assume(0 < sum(labels) < len(labels) and len(set(scores)) > 1)
    return scores, labels


@st.composite
def counted_clips(draw, values=few_values):
    """Scores, labels, and how often each clip is counted: both classes are, and two scores."""
    scores, labels = draw(scored_clips(values, max_size=12))
    counts = draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores)))
    counted = [clip for clip, count in zip(zip(scores, labels, strict=True), counts, strict=True) if count]
    assume({label for _, label in counted} == {0, 1} and len({score for score, _ in counted}) > 1)
    return scores, labels, counts


def official_walk(scores, labels):
    """Both error counts while clips are rejected one by one, the bona fide ones first among equals."""
    ranking = sorted(zip(scores, labels, strict=True), key=lambda clip: (clip[0], -clip[1]))
    points = [(0, sum(label == 0 for label in labels))]
    for _, label in ranking:
        missed, accepted = points[-1]
        points.append((missed + label, accepted - (1 - label)))
    return points


def exact_rates(scores, labels):
    """The walk's rates as fractions."""
    n_bonafide, n_spoof = sum(labels), len(labels) - sum(labels)
    return [(Fraction(m, n_bonafide), Fraction(a, n_spoof)) for m, a in official_walk(scores, labels)]

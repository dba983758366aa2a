"""Equal error rates of localization: worked examples, and the edges of the definitions."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hf_gradalign.metrics import Ranges, cells_of_windows, range_equal_error_rate, segment_equal_error_rate
from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.functional.localization import cut_pieces, cut_segments, error_of_time
from hf_gradalign.metrics.functional.ranked_scores import RankedScores


def ranges(*edges_and_values):
    """0, "a", 1, "b", 2: a from 0 to 1, b from 1 to 2."""
    edges, values = edges_and_values[::2], edges_and_values[1::2]
    return Ranges(edges[:-1], edges[1:], values)


HALVES = ranges(0, 1, 2, 0, 4)  # bona fide for two seconds, then spoofed


def test_time_by_hand():
    scores = ranges(0, 3.0, 1.5, 0.5, 2.4, -1.0, 4)
    # Up to -1, no bona fide time is lost, and 0.4 of 2 s of spoofed time passes. Up to 0.5, 0.5 of 2 s are lost, and
    # none passes.
    assert range_equal_error_rate([scores], [HALVES]) == pytest.approx({"range_eer": 0.1, "threshold": -1.0})
    # Half a second of bona fide time is rejected, and half a second of spoofed time accepted.
    scores = ranges(0, 3.0, 1.5, -2.0, 2.5, 1.0, 3, -1.0, 4)
    result = range_equal_error_rate([scores], [HALVES])
    assert result == pytest.approx({"range_eer": 0.25, "threshold": -1.0})


def test_perfect_and_inverted_scores():
    scores = ranges(0, 1.0, 2, -1.0, 4)
    inverted = ranges(0, -1.0, 2, 1.0, 4)
    assert range_equal_error_rate([scores], [HALVES]) == {"range_eer": 0, "threshold": -1}
    assert range_equal_error_rate([inverted], [HALVES])["range_eer"] == 1
    assert segment_equal_error_rate([scores], [HALVES], 0.5)["segment_eer"] == 0
    assert segment_equal_error_rate([inverted], [HALVES], 0.5)["segment_eer"] == 1
    constant = ranges(0, 2.0, 4)
    assert range_equal_error_rate([constant], [HALVES])["range_eer"] == 0.5
    assert segment_equal_error_rate([constant], [HALVES], 0.5)["segment_eer"] == 0.5


# 1.005 * 1e6 is less than 1,005,000 in floating point.
@pytest.mark.parametrize(("resolution", "boundary"), [(0.64, 1.92), (0.335, 1.005)])
def test_a_boundary_on_the_edge_of_a_segment(resolution, boundary):
    labels = ranges(0, 1, boundary, 0, 6 * resolution)
    scores = ranges(0, 1.0, boundary, -1.0, 6 * resolution)
    segments = cut_segments([scores], [labels], resolution)
    assert segments.is_bonafide.tolist() == [True] * 3 + [False] * 3
    assert segments.scores.tolist() == [1] * 3 + [-1] * 3


def test_a_segment_that_is_partly_spoofed_is_spoofed():
    labels = ranges(0, 1, 1.9, 0, 2.1, 1, 4)
    scores = ranges(0, 1.0, 1.5, 2.0, 4)
    segments = cut_segments([scores], [labels], 1)
    assert segments.is_bonafide.tolist() == [True, False, False, True]
    assert segments.scores.tolist() == [1, 1, 2, 2]  # the lowest
    assert cut_segments([scores], [labels], 0.1).is_bonafide.sum() == 38


def test_a_segment_takes_its_lowest_score_and_finer_segments_repeat_it():
    scores = ranges(0, 0.3, 0.02, 0.6, 0.04, 0.8, 0.06, 0.9, 0.08)
    labels = ranges(0, 1, 0.04, 0, 0.08)
    assert cut_segments([scores], [labels], 0.04).scores.tolist() == [0.3, 0.8]
    assert cut_segments([scores], [labels], 0.01).scores.tolist() == [0.3, 0.3, 0.6, 0.6, 0.8, 0.8, 0.9, 0.9]


def test_the_last_segment_may_be_shorter():
    segments = cut_segments([ranges(0, 1.0, 2.3, -1.0, 2.5)], [ranges(0, 1, 2.2, 0, 2.5)], 1)
    assert segments.is_bonafide.tolist() == [True, True, False]
    assert segments.scores.tolist() == [1, 1, -1]


def test_time_without_a_label_or_a_score_does_not_count():
    scores = ranges(0, 1.0, 2, -1.0, 4)
    silent = Ranges([0.0, 3.0], [1.0, 3.5], [1, 0])
    pieces = cut_pieces([scores], [silent])
    assert pieces.durations.tolist() == [1_000_000, 500_000]
    segments = cut_segments([scores], [silent], 1)
    assert segments.scores.tolist() == [1, -1]
    nothing = Ranges([], [], [])
    assert cut_segments([nothing, scores], [nothing, silent], 1).recordings.tolist() == [1, 1]
    # Segments of silence and speech take the label of speech.
    assert cut_segments([scores], [silent], 2).is_bonafide.tolist() == [True, False]
    # Labels that go on after the last score, and scores that go on after the last label.
    assert cut_pieces([scores], [ranges(0, 1, 2, 0, 9)]).durations.sum() == 4_000_000
    assert cut_pieces([scores], [ranges(0, 1, 2, 0, 3)]).durations.sum() == 3_000_000


def test_recordings_of_one_class_are_pooled():
    spoofed, bonafide = ranges(0, 0, 3), ranges(0, 1, 1)
    scores = [ranges(0, -1.0, 2.7, 1.0, 3), ranges(0, 0.0, 1)]
    result = range_equal_error_rate(scores, [spoofed, bonafide])
    assert result == pytest.approx({"range_eer": 0.05, "threshold": -1})
    with pytest.raises(ValueError, match="All time with a score and a label is spoofed"):
        range_equal_error_rate(scores[:1], [spoofed])
    with pytest.raises(ValueError, match="All time with a score and a label is bona fide"):
        segment_equal_error_rate(scores[1:], [bonafide], 0.1)


def test_counts_repeat_recordings():
    scores = [ranges(0, 1.0, 1.2, -1.0, 2), ranges(0, 0.5, 1, -0.5, 2)]
    labels = [ranges(0, 1, 1, 0, 2), ranges(0, 0, 1, 1, 2)]
    counted = error_of_time(cut_pieces(scores, labels))(np.array([3, 1]))
    repeated = range_equal_error_rate([*scores[:1] * 3, scores[1]], [*labels[:1] * 3, labels[1]])
    assert counted.rate == pytest.approx(repeated["range_eer"])


@given(st.data())
def test_time_in_equal_pieces_is_the_equal_error_over_them(data):
    n = data.draw(st.integers(2, 12))
    labels = data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda each: 0 < sum(each) < n))
    scores = data.draw(st.permutations(range(n)))
    edges = np.arange(n + 1) * 0.02
    scored, labeled = Ranges(edges[:-1], edges[1:], scores), Ranges(edges[:-1], edges[1:], labels)
    counted = RankedScores(scores, labels).counted()
    gaps = np.sort(np.abs(counted.false_rejection_rate - counted.false_acceptance_rate))
    assume(gaps[1] - gaps[0] > 1e-9)  # otherwise rounding decides which of the two closest points comes first
    expected = official_equal_error(counted)
    assert error_of_time(cut_pieces([scored], [labeled]))().rate == pytest.approx(expected.rate)
    assert segment_equal_error_rate([scored], [labeled], 0.02)["segment_eer"] == pytest.approx(expected.rate)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "No time of any recording has both"),
        ([ranges(0, 1.0, 4)], [], "scores of 1 recordings but labels of 0"),
        ([ranges(0, 1.0, 4)], [ranges(5, 1, 6, 0, 7)], "No time of any recording has both"),
        ([ranges(0, np.nan, 4)], [HALVES], "Recording 0 has a time, or one of its scores, that is NaN"),
        ([ranges(0, 1.0, 4)], [ranges(0, 1, 2, 2, 4)], r"Labels must be 1 \(bona fide\) or 0 \(spoof\)"),
        ([ranges(0, 1.0, 4)], [Ranges([0, 1], [2, 3], [0, 1])], "The labels of recording 0 overlap"),
        ([Ranges([0], [2, 3], [0])], [HALVES], "has 1 starts, 2 ends and 1 scores"),
    ],
    ids=range(7),
)
def test_refuses_what_cannot_be_compared(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        range_equal_error_rate(scores, labels)


@pytest.mark.parametrize("resolution", [0, -0.02])
def test_invalid_resolutions(resolution):
    with pytest.raises(ValueError, match="the resolution must be at least a microsecond"):
        segment_equal_error_rate([ranges(0, 1.0, 4)], [HALVES], resolution)


def test_cells_of_windows():
    cells = cells_of_windows([0, 0.5, 1, 1.2], [2, 2.5, 3, 3.2], [1, 2, 3, 4])
    np.testing.assert_allclose(cells.starts, [0, 1.25, 1.75, 2.1])
    np.testing.assert_allclose(cells.ends, [1.25, 1.75, 2.1, 3.2])
    assert cells.values.tolist() == [1, 2, 3, 4]
    assert [list(each) for each in cells_of_windows([1], [3], [5])] == [[1], [3], [5]]
    with pytest.raises(ValueError, match="in the order of time"):
        cells_of_windows([1, 0], [2, 1], [0, 0])
    with pytest.raises(ValueError, match="there are 0 starts"):
        cells_of_windows([], [], [])

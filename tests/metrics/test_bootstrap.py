"""Bootstrap intervals: their coverage, their draws, and what they refuse."""

import numpy as np
import pandas as pd
import pytest

from hf_gradalign.metrics import (
    METRICS,
    bootstrap_intervals,
    equal_error_rate,
    log_likelihood_ratio_cost,
    min_agnostic_detection_cost,
)
from hf_gradalign.metrics.stats import bootstrap
from hf_gradalign.metrics.stats.bootstrap import ClusterDraws, UtteranceDraws


def make_scores(n=400, shift=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(int)
    return rng.normal(size=n) + shift * labels, labels


def test_draws_keep_the_size_of_the_classes():
    labels = np.array([1, 0, 0, 1, 0, 0, 0])
    draws = UtteranceDraws(labels, seed=3)
    for number in range(20):
        counts = draws(number)
        assert counts[labels == 1].sum() == 2
        assert counts[labels == 0].sum() == 5
    assert (draws(4) == UtteranceDraws(labels, seed=3)(4)).all()
    assert any((draws(4) != UtteranceDraws(labels, seed=seed)(4)).any() for seed in range(4, 8))


def test_every_clip_is_drawn_once_on_average():
    labels = np.repeat([0, 1], [30, 10])
    draws = UtteranceDraws(labels, seed=0)
    counts = np.mean([draws(number) for number in range(4000)], axis=0)
    np.testing.assert_allclose(counts, 1, atol=0.1)
    # The probability that a clip is not drawn is (1 - 1/n)^n.
    absent = np.mean([draws(number)[:30] == 0 for number in range(2000)])
    assert absent == pytest.approx((29 / 30) ** 30, abs=0.01)


def test_speakers_are_drawn_whole():
    speakers = ["a", "b", "a", "c", None, "b", "-", "a"]
    draws = ClusterDraws(speakers, seed=1)
    assert draws.n_clusters == 5  # two clips have no speaker
    for number in range(20):
        counts = draws(number)
        assert counts[0] == counts[2] == counts[7]
        assert counts[1] == counts[5]
        assert counts[[0, 1, 3, 4, 6]].sum() == 5


def test_agrees_with_copying_and_sorting_each_draw():
    scores, labels = make_scores(60)
    order = np.lexsort((scores, labels))  # the order in which clips are drawn
    draws = UtteranceDraws(labels[order], seed=5)
    copies = [
        equal_error_rate(np.repeat(scores[order], draws(k)), np.repeat(labels[order], draws(k)))["eer"]
        for k in range(50)
    ]
    result = bootstrap_intervals("eer", scores, labels, n_draws=50, seed=5)["eer"]
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(copies, [0.025, 0.975])))
    assert result.standard_error == pytest.approx(np.std(copies, ddof=1))
    assert result.value == equal_error_rate(scores, labels)["eer"]
    assert result.n_draws == 50


def test_the_order_of_the_clips_does_not_matter():
    scores, labels = make_scores(100)
    shuffled = np.random.default_rng(0).permutation(100)
    first = bootstrap_intervals(["eer", "min_dcf"], scores, labels, n_draws=40)
    assert bootstrap_intervals(["eer", "min_dcf"], scores[shuffled], labels[shuffled], n_draws=40) == first


def test_clusters_of_a_table_are_taken_by_position():
    scores, labels = make_scores(100)
    speakers = [f"s{k % 20}" for k in range(100)]
    series = pd.Series(speakers, index=np.arange(100)[::-1])  # as after sorting or filtering a table
    first, second = (bootstrap_intervals("eer", scores, labels, clusters=own, n_draws=20) for own in (speakers, series))
    assert first == second


def test_several_metrics_see_the_same_draws():
    scores, labels = make_scores()
    together = bootstrap_intervals(list(METRICS.values()), scores, labels, n_draws=30)
    assert list(together) == list(METRICS)
    for name in METRICS:
        assert bootstrap_intervals(name, scores, labels, n_draws=30)[name] == together[name]


def test_any_function_goes_the_slow_way_to_the_same_interval():
    scores, labels = make_scores(80)

    def own(scores, labels):
        return log_likelihood_ratio_cost(scores, labels)["cllr"]

    fast = bootstrap_intervals(log_likelihood_ratio_cost, scores, labels, n_draws=40)["cllr"]
    slow = bootstrap_intervals(own, scores, labels, n_draws=40)["own"]
    assert (slow.low, slow.high, slow.value) == pytest.approx((fast.low, fast.high, fast.value))


def test_trials_of_three_types():
    rng = np.random.default_rng(0)
    types = np.repeat(["target", "nontarget", "spoof"], 30)
    scores = rng.normal(size=90) + 3 * (types == "target")
    result = bootstrap_intervals(min_agnostic_detection_cost, scores, types, n_draws=50)["min_agnostic_detection_cost"]
    assert result.value == min_agnostic_detection_cost(scores, types)["a_dcf"]
    assert 0 <= result.low <= result.value <= result.high


def test_intervals_have_the_coverage_that_they_claim():
    from scipy.stats import norm

    truth = norm.cdf(-1.0)  # two unit normals with means two apart
    held = []
    for seed in range(100):
        scores, labels = make_scores(300, seed=seed)
        result = bootstrap_intervals("eer_interpolated", scores, labels, n_draws=40, confidence=0.8)
        interval = result["eer_interpolated"]
        held.append(interval.low <= truth <= interval.high)
    assert 0.67 < np.mean(held) < 0.92  # 0.8, within three standard errors of 100 trials


def test_clips_of_a_speaker_are_alike_and_make_wider_intervals():
    rng = np.random.default_rng(0)
    speakers = np.repeat(np.arange(20), 40)
    labels = np.tile([0, 1], 400)
    scores = rng.normal(size=800) + 2 * labels + 1.5 * rng.normal(size=20)[speakers]
    clips = bootstrap_intervals("eer", scores, labels, n_draws=200)["eer"]
    whole = bootstrap_intervals("eer", scores, labels, n_draws=200, clusters=speakers)["eer"]
    assert whole.standard_error > 1.5 * clips.standard_error
    assert whole.value == clips.value
    # With one clip per speaker it is the bootstrap of clips, except for the class sizes.
    alone = bootstrap_intervals("eer", scores, labels, n_draws=200, clusters=np.arange(800))["eer"]
    assert alone.standard_error == pytest.approx(clips.standard_error, rel=0.25)


def test_draws_without_a_class_are_skipped_with_a_warning():
    speakers = ["a", "a", "b", "b", "c", "d", "e", "f"]
    with pytest.warns(UserWarning, match=r"eer is undefined in \d+ of 200 bootstrap draws, which lack one"):
        result = bootstrap_intervals("eer", np.arange(8.0), [1, 1, 1, 0, 0, 0, 1, 0], clusters=speakers, n_draws=200)[
            "eer"
        ]
    assert 100 < result.n_draws < 200
    with pytest.raises(ValueError, match=r"cllr is undefined in .* too few speakers"):
        bootstrap_intervals("cllr", np.arange(40.0), [1] + [0] * 39, clusters=["a", *["b"] * 39], n_draws=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_draws": 1}, "needs at least two draws, not 1"),
        ({"confidence": 95}, "between 0 and 1, not 95"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
        ({"clusters": ["a"]}, "There are 400 clips but 1 speakers"),
        ({"clusters": ["a"] * 400}, "There are 1 speakers .* needs at least two"),
        ({"clusters": [None] * 400}, "There are 0 speakers"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals("eer", *make_scores(), **{"n_draws": 10, **options})


def test_scores_are_checked():
    with pytest.raises(ValueError, match="NaN or infinite"):
        bootstrap_intervals("eer", [np.nan, 1.0], [0, 1])
    with pytest.raises(ValueError, match="All 2 clips are spoofed"):
        bootstrap_intervals("eer", [0.0, 1.0], [0, 0])


def test_a_progress_bar_only_on_request(monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, "_BAR_AFTER", 0.0)
    scores, labels = np.arange(20.0), np.arange(20) % 2
    bootstrap_intervals("eer", scores, labels, n_draws=5)
    assert capsys.readouterr().err == ""
    bootstrap_intervals("eer", scores, labels, n_draws=5, progress=True)
    assert "Bootstrap: " in capsys.readouterr().err

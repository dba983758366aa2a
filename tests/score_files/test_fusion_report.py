"""The report of a fusion: held-out clips, and whether it beats the best single system."""

import re

import numpy as np
import pyarrow as pa
import pytest

from hf_gradalign.metrics import compare_systems, log_likelihood_ratio_cost
from hf_gradalign.score_files import Clips, ScoreFileError, cross_validate_fusion, fit_fusion, join_systems
from hf_gradalign.score_files.fusion import fit_ratios
from hf_gradalign.score_files.fusion_report import REPORTED
from hf_gradalign.score_files.held_out import held_out_scores

N = 400
LABELS = np.arange(N) // 20 % 2
SPEAKERS = [f"s{number % 10}" for number in range(N)]
NOISE = np.random.default_rng(0).normal(size=(N, 3))


def joint(scores, labels=LABELS, **columns):
    names = pa.array([f"u{number:03d}" for number in range(len(labels))])
    keys = Clips("keys.tsv", names, labels=labels, columns={name: pa.array(c) for name, c in columns.items()})
    return join_systems(
        [Clips(f"{'abc'[k]}.txt", names, scores=own) for k, own in enumerate(np.transpose(scores))], keys
    )


def test_systems_that_complement_each_other():
    scores = joint(NOISE[:, :2] + 1.5 * LABELS[:, None])
    report = cross_validate_fusion(scores, n_draws=50)
    assert set(report.systems) == {"a.txt", "b.txt"}
    assert set(report.rivals) == set(REPORTED)
    for metric, rival in report.rivals.items():
        assert rival.comparison.first == report.fusion[metric] < rival.comparison.second
        assert rival.comparison.second == min(values[metric] for values in report.systems.values())
        assert report.systems[rival.name][metric] == rival.comparison.second
    assert report.conclusions()[0].startswith("Held out, the fusion beats the best single system in Cllr (")
    assert report.fusion["cllr"] == log_likelihood_ratio_cost(report.scores, LABELS)["cllr"]
    assert report.utterance_ids.to_pylist() == scores.clips.utterance_ids.to_pylist()
    text = report.describe(fit_fusion(scores.scores, LABELS, scores.names))
    assert "Held out (5 folds, stratified by class), each system calibrated alone, and the fusion:" in text
    assert "Paired bootstrap of clips within each class, 50 draws:" in text
    assert re.search(rf"^\| fusion +\| +\| {report.fusion['cllr']:.5f} \|", text, re.MULTILINE)
    assert text.endswith(" ".join(report.conclusions()))


def test_a_system_and_noise():
    scores = np.stack([NOISE[:, 0] + 2 * LABELS, NOISE[:, 1]], axis=1)
    sentences = cross_validate_fusion(joint(scores), n_draws=50).conclusions()
    assert sentences[0] == "Held out, the fusion does not beat the best single system in any metric."
    assert "The difference may be chance in" in " ".join(sentences[1:])


@pytest.mark.filterwarnings("ignore:The scores separate")
def test_a_fusion_that_is_worse():
    """Fitted on half of few clips, many useless systems hurt on the other half."""
    generator = np.random.default_rng(1)
    labels = np.arange(60) % 2
    scores = np.concatenate(
        [generator.normal(size=(60, 1)) + 3 * labels[:, None], generator.normal(size=(60, 2))], axis=1
    )
    report = cross_validate_fusion(joint(scores, labels), n_folds=2, l2=0.0, n_draws=50, confidence=0.05)
    assert any(sentence.startswith("It is worse in ") for sentence in report.conclusions())


def test_no_speaker_is_fitted_on_and_scored_at_once():
    scores = joint(NOISE[:, :2] + LABELS[:, None], speaker=SPEAKERS)
    report = cross_validate_fusion(scores, n_draws=20)
    assert (report.folds.over, report.draws_over) == ("speaker", "speaker")
    speakers = {number: {SPEAKERS[k] for k in np.flatnonzero(report.folds.numbers == number)} for number in range(5)}
    assert sum(map(len, speakers.values())) == 10
    for number in range(5):
        is_held_out = report.folds.numbers == number
        fusion = fit_fusion(scores.scores[~is_held_out], LABELS[~is_held_out])
        assert report.scores[is_held_out] == pytest.approx(fusion(scores.scores[is_held_out]))
    by_clip = cross_validate_fusion(scores, hold_out="utterance", draws_over="speaker", n_draws=20)
    assert (by_clip.folds.over, by_clip.draws_over) == ("utterance", "speaker")


@pytest.mark.parametrize(("gain", "l2"), [(1.5, None), (1.5, 0.1), (6.0, None)])
@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_a_system_are_as_good_as_it_is(gain, l2, copies):
    scores = np.repeat(NOISE[:, :1] + gain * LABELS[:, None], copies, axis=1) * np.arange(1, copies + 1)
    report = cross_validate_fusion(joint(scores), l2=l2, n_draws=20)
    for values in report.systems.values():
        assert report.fusion == pytest.approx(values, rel=1e-4)
    assert report.conclusions()[0] == "Held out, the fusion does not beat the best single system in any metric."


def test_systems_without_errors_are_not_compared_by_their_penalty():
    report = cross_validate_fusion(joint(NOISE[:, :2] + 30 * LABELS[:, None]), n_draws=20)
    assert report.rivals["cllr"].comparison.difference < 0
    assert report.conclusions() == [
        "Held out, the fusion does not beat the best single system in any metric.",
        "The difference may be chance in actDCF (a.txt, p = 1), EER (a.txt, p = 1) and minDCF (a.txt, p = 1).",
        f"Both the fusion and {report.rivals['cllr'].name} separate the classes without errors, so the difference in "
        "Cllr follows from the penalty and means nothing. Use harder clips.",
    ]


def test_neither_scale_nor_order_of_systems_matters():
    scores = NOISE + np.outer(LABELS, [2.0, 1.5, 0.5])
    report = cross_validate_fusion(joint(scores), n_draws=20)
    other = cross_validate_fusion(joint((scores * [0.01, -3, 100] + 5)[:, ::-1]), n_draws=20)
    assert other.scores == pytest.approx(report.scores, abs=1e-5)
    assert other.rivals["cllr"].comparison.p_value == report.rivals["cllr"].comparison.p_value


def test_the_test_is_a_paired_bootstrap_of_speakers():
    scores = joint(NOISE[:, :2] + LABELS[:, None], speaker=SPEAKERS)
    report = cross_validate_fusion(scores, l2=0.02, n_draws=20, seed=3)
    rival = report.rivals["cllr"]
    single = held_out_scores(
        lambda own, labels: fit_ratios(own, labels, prior=0.5, l2=0.01),
        scores.scores[:, [scores.names.index(rival.name)]],
        LABELS,
        report.folds,
    )
    expected = compare_systems(report.scores, single, LABELS, "cllr", clusters=SPEAKERS, n_draws=20, seed=3)
    assert rival.comparison == expected["cllr"]
    assert report.as_dict()["best_single_systems"]["cllr"]["name"] == rival.name


def test_mistakes():
    scores = joint(NOISE[:, :2] + LABELS[:, None])
    with pytest.raises(ValueError, match=r"With 19 draws, no p-value is below 0\.05, .* confidence of 0\.95"):
        cross_validate_fusion(scores, n_draws=19)
    with pytest.raises(ScoreFileError, match=r"no column 'speaker' \(--hold_out\)"):
        cross_validate_fusion(scores, hold_out="speaker")
    with pytest.raises(ScoreFileError, match=r"no column 'codec' \(--bootstrap_over\)"):
        cross_validate_fusion(scores, draws_over="codec")

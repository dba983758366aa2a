"""Cross-validation: which clips are held out together, and by which model they are scored."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_gradalign.score_files import Clips, ScoreFileError
from hf_gradalign.score_files.held_out import held_out_scores, make_folds


def clips_of(labels, **columns):
    names = [f"u{number:03d}" for number in range(len(labels))]
    texts = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return Clips("dev.txt", pa.array(names), labels=np.array(labels), columns=texts)


@given(labels=st.lists(st.integers(0, 1), min_size=4, max_size=60), n_folds=st.integers(2, 7))
def test_single_clips(labels, n_folds):
    sizes = np.bincount(labels, minlength=2)
    if sizes.min() < 2:
        with pytest.raises(ScoreFileError, match=r"needs at least 2 of each class\. Use keys with more"):
            make_folds(clips_of(labels), n_folds=n_folds)
        return
    folds = make_folds(clips_of(labels), n_folds=n_folds)
    assert folds.n_folds == min(n_folds, *sizes)
    per_fold = np.array([np.bincount(np.array(labels)[folds.numbers == k], minlength=2) for k in range(folds.n_folds)])
    assert (per_fold.max(axis=0) - per_fold.min(axis=0) <= 1).all()
    assert np.ptp(per_fold.sum(axis=1)) <= 1
    assert folds.over == "utterance"
    assert folds.describe() == f"{folds.n_folds} folds, stratified by class"


@pytest.mark.parametrize(("seed", "n_speakers"), [(0, 2), (1, 3), (2, 5), (3, 9)])
def test_speakers_are_held_out_as_a_whole_if_there_are_any(seed, n_speakers):
    speakers = [f"s{number % n_speakers}" for number in range(60)]
    folds = make_folds(clips_of(np.arange(60) // 2 % 2, speaker=speakers), seed=seed)
    assert folds.over == "speaker"
    assert folds.n_folds == min(5, n_speakers)
    assert folds.describe() == f"{folds.n_folds} folds, no speaker is in two of them"
    assert all(len({folds.numbers[k] for k in range(60) if speakers[k] == name}) == 1 for name in set(speakers))


def test_folds_do_not_depend_on_the_order_of_clips():
    labels = np.arange(40) % 2
    order = np.random.default_rng(1).permutation(40)
    for columns in ({}, {"speaker": [f"s{k // 4}" for k in range(40)]}):
        clips = clips_of(labels, **columns)
        assert (make_folds(clips.take(order)).numbers == make_folds(clips).numbers[order]).all()
        assert (make_folds(clips, seed=1).numbers != make_folds(clips).numbers).any()


def test_clips_without_a_value_are_held_out_one_by_one():
    labels = np.arange(60) % 2
    systems = ["-" if label else f"A{k % 3}" for k, label in enumerate(labels)]
    folds = make_folds(clips_of(labels, system=systems), over="system")
    assert set(folds.numbers[labels == 1]) == set(range(5))
    assert all(len({folds.numbers[k] for k in range(60) if systems[k] == name}) == 1 for name in ("A0", "A1", "A2"))
    assert make_folds(clips_of(labels, speaker=["-"] * 60)).over == "utterance"


def test_a_class_with_one_speaker():
    labels = np.arange(30) % 2
    clips = clips_of(labels, speaker=["me" if label else f"s{k}" for k, label in enumerate(labels)])
    with pytest.warns(UserWarning, match=r"a class has fewer than two of them\. Single clips are held out"):
        folds = make_folds(clips)
    assert folds.over == "utterance"
    with pytest.raises(ScoreFileError, match=r"no speaker can be held out.*--hold_out utterance"):
        make_folds(clips, over="speaker")
    with pytest.raises(ScoreFileError, match=r"no speaker can be held out.*--hold_out utterance"):
        make_folds(clips_of(labels, speaker=["-"] * 30), over="speaker")


def test_mistakes():
    clips = clips_of([0, 1, 0, 1])
    with pytest.raises(ValueError, match="seed must be 0 or more, not -1"):
        make_folds(clips, seed=-1)
    with pytest.raises(ValueError, match="at least 2 folds, not 1"):
        make_folds(clips, n_folds=1)
    with pytest.raises(ScoreFileError, match=r"no column 'codec' \(--hold_out\)"):
        make_folds(clips, over="codec")
    with pytest.raises(ScoreFileError, match=r"dev\.txt has no labels"):
        make_folds(Clips("dev.txt", pa.array(["a"])))


def test_no_clip_is_scored_by_a_model_that_has_seen_it():
    features = np.arange(20.0)
    folds = make_folds(clips_of(np.arange(20) % 2))
    fitted = []

    def fit(features, labels):
        fitted.append((features, labels))
        return lambda others: 100 * len(fitted) + others

    scores = held_out_scores(fit, features, np.arange(20) % 2, folds)
    assert len(fitted) == folds.n_folds
    for number, (seen, labels) in enumerate(fitted):
        held_out = features[folds.numbers == number]
        assert sorted([*seen, *held_out]) == list(features)
        assert (labels == seen % 2).all()
        assert (scores[folds.numbers == number] == 100 * (number + 1) + held_out).all()

"""Scores and labels of the same utterances are matched, with notes on the rest."""

import numpy as np
import pyarrow as pa
import pytest

from hf_gradalign.score_files import Clips, ScoreFileError, match_keys, match_systems


def scores_of(names, values=None, **more):
    values = np.arange(len(names), dtype=float) if values is None else np.array(values, dtype=float)
    return Clips("scores.txt", pa.array(names, pa.string()), scores=values, **more)


def keys_of(names, labels=None, **more):
    labels = np.arange(len(names)) % 2 if labels is None else np.array(labels)
    return Clips("keys.txt", pa.array(names, pa.string()), labels=labels, **more)


def test_in_the_keys_order_with_both_files_columns():
    scores = scores_of(["b", "a", "c"], columns={"codec": pa.array(["x", "y", "z"]), "system": pa.array(["?"] * 3)})
    keys = keys_of(["a", "b", "c"], [1, 0, 0], columns={"system": pa.array(["-", "A1", "A2"])})
    result = match_keys(scores, keys)
    assert result.utterance_ids.to_pylist() == ["a", "b", "c"]
    assert result.scores.tolist() == [1.0, 0.0, 2.0]
    assert result.labels.tolist() == [1, 0, 0]
    assert result.columns["system"].to_pylist() == ["-", "A1", "A2"]
    assert result.columns["codec"].to_pylist() == ["y", "x", "z"]
    assert result.notes == ()
    assert result.source == "scores.txt"


@pytest.mark.parametrize(
    ("scored", "keyed", "how"),
    [
        (["0", "1", "2"], ["0.wav", "1.wav", "2.wav"], "without file extensions"),
        (["a.FLAC", "b.flac"], ["a", "b"], "without file extensions"),
        (["x/y/a.wav", "x/b.wav"], ["a", "b"], "without folders and file extensions"),
        (["a", "b"], ["real/a.mp3", "fake\\b.mp3"], "without folders and file extensions"),
        (["x/a", "y/b"], ["a", "b"], "without folders"),
        (["C:\\x\\a.WAV", "C:\\y\\b.WAV"], ["a", "b"], "without folders and file extensions"),
        (
            ["gro\u0308\u00dfe_1", "gro\u0308\u00dfe_2"],
            ["gr\u00f6\u00dfe_1", "gr\u00f6\u00dfe_2"],
            "in one Unicode form (NFC)",
        ),
        (
            ["\u1112\u1161\u11ab.wav", "b.wav"],
            ["\ud55c", "b"],
            "file extensions and in one Unicode form (NFC)",
        ),
        (["LA_E_1", "LA_E_2"], ["la_e_1", "la_e_2"], "in lower case"),
        (
            ["set/U1.flac", "set/U2.flac"],
            ["u1", "u2"],
            "without folders and file extensions and in lower case",
        ),
        (["7", "8"], ["0007", "0008"], "as whole numbers"),
        (["7.0", "8.0"], ["7", "8"], "as whole numbers"),
    ],
)
def test_by_stem(scored, keyed, how):
    result = match_keys(scores_of(scored), keys_of(keyed))
    assert result.scores.tolist() == list(range(len(scored)))
    (note,) = result.notes
    assert note.endswith(how + ".")


def test_points_in_names_are_not_file_extensions():
    result = match_keys(scores_of(["a.1", "a.2"]), keys_of(["a.2", "a.1"]))
    assert result.scores.tolist() == [1.0, 0.0]
    with pytest.raises(ScoreFileError, match="No utterance of"):
        match_keys(scores_of(["a.1", "a.2"]), keys_of(["a"]))


def test_exact_names_come_first():
    # With folders they are different clips; without folders they would be the same.
    result = match_keys(scores_of(["x/a", "y/a"]), keys_of(["y/a", "x/a"]))
    assert result.scores.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("scored", "keyed"),
    [
        ("real/0.wav", "fake/0.wav"),
        ("x/real/0.wav", "fake/0"),
        ("x/a/0", "y/x/0"),
        ("x/a/0", "y/a/0"),
        ("REAL/0", "fake/0"),
        ("al/0", "real/0"),  # only whole folders count
        ("C:\\real\\0.wav", "fake/0.wav"),
    ],
)
def test_different_folders_mean_different_clips(scored, keyed):
    with pytest.raises(ScoreFileError, match="No utterance of"):
        match_keys(scores_of([scored]), keys_of([keyed]))
    with pytest.raises(ScoreFileError, match="No utterance of"):
        match_systems(scores_of([scored]), scores_of([keyed]))
    # Other names still match.
    result = match_keys(scores_of([scored, "u/1.wav"]), keys_of([keyed, "1"]), allow_missing=True)
    assert result.utterance_ids.to_pylist() == ["1"]
    assert result.scores.tolist() == [1.0]


def test_no_names_at_all_match_nothing():
    keys = keys_of(["x/a", "b"], other_ids=pa.array([], pa.string()))
    assert len(match_keys(scores_of(["a", "b", "c"]), keys)) == 2


def test_the_message_names_clips_in_other_folders():
    with pytest.raises(ScoreFileError, match=r"recur in other folders, .*: fake/0.wav and real/0.wav\. Check that"):
        match_keys(scores_of(["real/0.wav"]), keys_of(["fake/0.wav"]))
    with pytest.raises(ScoreFileError, match=r"recur in other folders, .* Two systems"):
        match_systems(scores_of(["real/0.wav"]), scores_of(["fake/0.wav"]))


@pytest.mark.parametrize(
    ("scored", "keyed"),
    [
        ("/data/flac/0.flac", "flac/0.flac"),
        ("./flac/0.flac", "flac/0"),
        ("D:\\x\\Flac\\0.FLAC", "flac/0.flac"),
        ("flac//0.flac", "/x/flac/0"),
    ],
)
def test_the_last_folders_must_be_the_same(scored, keyed):
    assert match_keys(scores_of([scored]), keys_of([keyed])).scores.tolist() == [0.0]
    assert match_keys(scores_of([keyed]), keys_of([scored])).scores.tolist() == [0.0]


@pytest.mark.parametrize(
    ("scored", "keyed", "whose"),
    [(["x/a", "y/a", "b"], ["a", "b"], "scores.txt"), (["a", "b"], ["x/a", "y/a", "b"], "keys.txt")],
)
def test_ambiguous_stems_are_refused(scored, keyed, whose):
    with pytest.raises(ScoreFileError, match=rf"{whose} has both 'x/a' and 'y/a'\. Use the same names"):
        match_keys(scores_of(scored), keys_of(keyed))


@pytest.mark.parametrize(
    ("scored", "keyed"),
    [
        (["a", "A", "B"], ["a", "b"]),
        (["\u00e4", "a\u0308"], ["\u00e4", "a\u0308", "x"]),
        (["7", "07", "8"], ["007", "8"]),
    ],
)
def test_other_forms_of_a_name_are_distinguished_or_refused(scored, keyed):
    # Exact matches are kept. Other names match only if there is exactly one candidate.
    if set(scored) < set(keyed):
        assert match_keys(scores_of(scored), keys_of(keyed), allow_missing=True).utterance_ids.to_pylist() == scored
    else:
        with pytest.raises(ScoreFileError, match=r"has both .* Use the same names in both files"):
            match_keys(scores_of(scored), keys_of(keyed))


def test_keys_without_scores():
    names = [f"u{k}" for k in range(40)]
    result = match_keys(scores_of(names[:38]), keys_of(names))
    assert len(result) == 38
    assert "2 of 40 utterances of keys.txt have no score in scores.txt (u38, u39)" in result.notes[0]
    with pytest.raises(ScoreFileError, match=r"3 of 40 utterances .* more than 5%: .*--partial"):
        match_keys(scores_of(names[:37]), keys_of(names))
    assert len(match_keys(scores_of(names[:7]), keys_of(names), allow_missing=True)) == 7


def test_scores_without_keys():
    result = match_keys(scores_of(["a", "b", "c", "d", "e"]), keys_of(["a", "b"]))
    assert len(result) == 2
    assert result.notes == ("3 of 5 utterances of scores.txt have no label in keys.txt (c, d, e), and are skipped.",)
    # Clips of another subset are skipped on purpose.
    keys = keys_of(["a", "b"], other_ids=pa.array(["c", "d"]))
    result = match_keys(scores_of(["a", "b", "c", "d"]), keys)
    assert result.notes == ()
    assert match_keys(scores_of(["a", "b", "c", "e"]), keys).notes[0].startswith("1 of 4 utterances")
    assert match_keys(scores_of(["a.wav", "b.wav", "c.wav"]), keys).notes == (
        "Utterances of scores.txt and keys.txt were matched without file extensions.",
    )


def test_no_common_clips():
    with pytest.raises(ScoreFileError, match=r"No utterance of scores.txt \(a, b\) is in keys.txt \(c, d, e, ...\)"):
        match_keys(scores_of(["a", "b"]), keys_of(["c", "d", "e", "f"]))


def test_labels_that_disagree_make_a_note():
    scores = scores_of(["a", "b", "c"], labels=np.array([1, 1, 0]))
    result = match_keys(scores, keys_of(["a", "b", "c"], [1, 0, 0]))
    assert result.labels.tolist() == [1, 0, 0]
    assert result.notes == ("1 labels in scores.txt differ from keys.txt, whose labels are used.",)


def test_two_systems():
    first = scores_of(["a", "b", "c"], labels=np.array([1, 0, 1]))
    second = scores_of(["c.wav", "a.wav", "d.wav"], [30.0, 10.0, 40.0])
    common, other, notes = match_systems(first, second)
    assert common.utterance_ids.to_pylist() == ["a", "c"]
    assert common.scores.tolist() == [0.0, 2.0]
    assert other.tolist() == [10.0, 30.0]
    assert "2 utterances are in both scores.txt (3) and scores.txt (3)" in notes[1]
    with pytest.raises(ScoreFileError, match="systems can be compared only on the same clips"):
        match_systems(first, scores_of(["x"]))
    agreeing, differing = (scores_of(["c", "a"], labels=np.array([label, 1])) for label in (1, 0))
    assert match_systems(first, agreeing)[1].tolist() == [1.0, 0.0]
    with pytest.raises(ScoreFileError, match=r"1 labels of .* differ from those of .* \(c\).* with KEYS"):
        match_systems(first, differing)

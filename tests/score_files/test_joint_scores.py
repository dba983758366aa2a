"""Scores of several systems for the same clips: no clip is dropped without a word."""

import numpy as np
import pyarrow as pa
import pytest

from hf_gradalign.score_files import Clips, ScoreFileError, join_systems, own_keys
from hf_gradalign.score_files.clips import Verdicts

NAMES = [f"u{number:02d}" for number in range(40)]


def system(source, names=NAMES, scores=None, **more):
    scores = np.arange(len(names), dtype=float) if scores is None else np.array(scores, dtype=float)
    return Clips(source, pa.array(names, pa.string()), scores=scores, **more)


def keys_of(names=NAMES, **more):
    return Clips("keys.tsv", pa.array(names, pa.string()), labels=np.arange(len(names)) % 2, **more)


def lists(missing):
    return {source: names.to_pylist() for source, names in missing.items()}


def test_in_the_order_of_the_keys():
    order = np.random.default_rng(0).permutation(40)
    second = system("b.txt", [f"flac/{NAMES[k]}.flac" for k in order], 100.0 + order)
    keys = keys_of(columns={"speaker": pa.array(["s"] * 40)})
    joint = join_systems([system("a.txt"), second], keys)
    assert joint.sources == ("a.txt", "b.txt")
    assert joint.clips.utterance_ids.to_pylist() == NAMES
    assert (joint.scores == np.stack([np.arange(40), 100 + np.arange(40)], axis=1)).all()
    assert (joint.labels == np.arange(40) % 2).all()
    assert joint.clips.columns["speaker"].to_pylist() == ["s"] * 40
    assert joint.missing == {}
    assert joint.describe_missing() is None
    assert joint.notes == ("Utterances of b.txt and keys.tsv were matched without folders and file extensions.",)


def test_missing_clips_are_listed_by_file(tmp_path):
    first, second = system("a.txt", NAMES[1:]), system("b.txt", [*NAMES[:-1], "extra"])
    joint = join_systems([first, second], keys_of())
    assert len(joint) == 38
    assert lists(joint.missing) == {"a.txt": ["u00"], "b.txt": ["u39"], "keys.tsv": ["extra"]}
    assert joint.describe_missing() == (
        "38 of 40 utterances are in all files; a.txt lacks 1 (u00); b.txt lacks 1 (u39); keys.tsv lacks 1 (extra)."
    )
    joint.write_missing(tmp_path / "missing.tsv")
    assert (tmp_path / "missing.tsv").read_text().splitlines() == [
        "file\tlacks",
        *("a.txt\tu00", "b.txt\tu39", "keys.tsv\textra"),
    ]


def test_too_many_missing_clips_are_refused():
    systems = [system("a.txt", NAMES[2:]), system("b.txt", NAMES[:-1])]
    with pytest.raises(ScoreFileError, match=r"37 of 40 .* a\.txt lacks 2 \(u00, u01\).*More than 5% .*--partial"):
        join_systems(systems, keys_of())
    assert len(join_systems(systems, keys_of(), allow_missing=True)) == 37
    with pytest.raises(ScoreFileError, match=r"a\.txt lacks 2 \(u00, u01\); b\.txt lacks 1 \(u39\)"):
        join_systems(systems)


def test_no_common_clips():
    systems = [system("a.txt", NAMES[:20]), system("b.txt", NAMES[20:])]
    for keys in (keys_of(), None):
        with pytest.raises(ScoreFileError, match=r"^0 of 40 .* Check that the files are of the same clips"):
            join_systems(systems, keys, allow_missing=True)


def test_trials_of_speaker_verification_are_refused():
    keys = keys_of(trial_types=np.array(["target", "nontarget", "spoof", "target"] * 10))
    with pytest.raises(
        ScoreFileError, match=r"keys\.tsv has trials of speaker verification .*Give keys with these two"
    ):
        join_systems([system("a.txt"), system("b.txt")], keys)


def test_without_keys():
    second = system("b.txt", [f"{name}.wav" for name in [*NAMES[1:], "new"]])
    joint = join_systems([system("a.txt"), second, system("c.txt", [*NAMES, "new"])], allow_missing=True)
    assert joint.clips.utterance_ids.to_pylist() == NAMES[1:]
    assert (joint.scores == np.stack([np.arange(1, 40), np.arange(39), np.arange(1, 40)], axis=1)).all()
    assert joint.n_wanted == 41
    assert lists(joint.missing) == {"a.txt": ["new.wav"], "b.txt": ["u00"]}
    with pytest.raises(ScoreFileError, match="have no labels"):
        _ = joint.labels


def test_names_of_systems():
    def names(*sources):
        return join_systems([system(source) for source in sources]).names

    assert names("dev/a.txt", "dev/b.txt") == ("a.txt", "b.txt")
    assert names("a/dev.txt", "b/dev.txt") == ("a/dev.txt", "b/dev.txt")
    assert names("x/a/dev.txt", "y/a/dev.txt", "dev.txt") == ("x/a/dev.txt", "y/a/dev.txt", "dev.txt")
    assert names("a.txt", "a.txt", "b.txt") == ("a.txt (1)", "a.txt (2)", "b.txt")


def test_labels_of_the_score_files():
    labels = np.arange(40) % 2
    first, second = system("a.txt", NAMES[1:], labels=labels[1:]), system("b.txt", labels=labels)
    for systems in ([first, second], [second, first]):
        read, keys = own_keys([*systems, system("c.txt")])
        assert (keys.source, len(keys), keys.scores) == ("b.txt", 40, None)
        assert len(join_systems(read, keys)) == 39
    other = system("b.txt", labels=1 - labels)
    with pytest.raises(ScoreFileError, match=r"39 labels of b\.txt differ from those of a\.txt \(u01, .*--keys"):
        own_keys([first, other])
    with pytest.raises(ScoreFileError, match=r"None of c\.txt, d\.txt contains true labels: .*--keys"):
        own_keys([system("c.txt"), system("d.txt")])


def test_confidences_of_predicted_labels():
    probabilities = np.linspace(0.5, 1, 40)
    verdicts = Verdicts(np.arange(40) // 20 % 2)
    predicted = system("p.txt", scores=probabilities, verdicts=verdicts)
    joint = join_systems([system("a.txt"), predicted], keys_of())
    assert joint.were_confidences == (False, True)
    assert joint.scores[:, 1] == pytest.approx(np.where(verdicts.labels == 1, probabilities, 1 - probabilities))
    with pytest.raises(ScoreFileError, match=r"No score of p\.txt is below one half.*--score_is"):
        join_systems([system("a.txt"), predicted])

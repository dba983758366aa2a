"""Predicted labels are not the truth, and their confidence must be converted before it ranks clips."""

import json

import numpy as np
import pytest

from hf_gradalign.score_files import (
    ScoreFileError,
    match_keys,
    read_keys,
    read_scores,
    require_same_form,
    with_own_labels,
)

RNG = np.random.default_rng(3)
N = 40
TRUTH = np.arange(N) % 2
LOGITS = np.round(RNG.normal(size=N) + 2 * TRUTH - 1, 4)
P = 1 / (1 + np.exp(-LOGITS))
NAMES = [f"u{k:02d}" for k in range(N)]
PREDICTED = ["bonafide" if p > 0.5 else "spoof" for p in P]
CONFIDENCE = np.maximum(P, 1 - P)
N_WRONG = int(np.count_nonzero((P > 0.5) != TRUTH))
assert 2 <= N_WRONG < N / 2


@pytest.fixture
def write(tmp_path):
    def write(name, *columns, header=None, separator=","):
        rows = [separator.join(map(str, row)) for row in zip(*columns, strict=True)]
        path = tmp_path / name
        path.write_text("\n".join([*([header] if header else []), *rows]) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def keys(write):
    return read_keys(write("keys.txt", NAMES, ["bonafide" if label else "spoof" for label in TRUTH], separator=" "))


def matched(path, keys, **options):
    clips = match_keys(read_scores(path, has_keys=True, **options), keys)
    assert clips.utterance_ids.to_pylist() == NAMES
    assert clips.labels.tolist() == TRUTH.tolist()
    return clips


REAL_FAKE = ["real" if p > 0.5 else "fake" for p in P]
CONFIDENCES = {
    "as pipelines write it": ((NAMES, PREDICTED, CONFIDENCE), "file,label,score"),
    "other words": ((NAMES, REAL_FAKE, CONFIDENCE), "path,Label,Score"),
    "without a header": ((NAMES, PREDICTED, CONFIDENCE), None),
    "percentages": ((NAMES, PREDICTED, 100 * CONFIDENCE), "file,label,score"),
    "per cent signs": ((NAMES, PREDICTED, [f"{100 * p}%" for p in CONFIDENCE]), "file,label,score"),
    "another name": ((NAMES, PREDICTED, CONFIDENCE), "utt,result,confidence"),
}


@pytest.mark.parametrize("kind", CONFIDENCES)
def test_confidence_becomes_a_score_where_keys_show_what_it_is(write, keys, kind):
    columns, header = CONFIDENCES[kind]
    clips = matched(write("s.csv", *columns, header=header), keys)
    np.testing.assert_allclose(clips.scores, P, atol=1e-12)
    assert f"({N_WRONG} of {N} differ from {keys.source}) and its scores their confidence" in clips.notes[-1]


@pytest.mark.parametrize("kind", CONFIDENCES)
def test_confidence_without_keys_is_refused(write, kind):
    columns, header = CONFIDENCES[kind]
    path = write("s.csv", *columns, header=header)
    with pytest.raises(ScoreFileError, match=r"No score of .* Only keys can tell: add KEYS, .*--score_is"):
        read_scores(path)
    # If the user says that it is confidence, the file has no true labels.
    clips = read_scores(path, score_is="confidence")
    np.testing.assert_allclose(clips.scores, P, atol=1e-12)
    with pytest.raises(ScoreFileError, match="contains no true labels: add KEYS"):
        with_own_labels(clips)


def test_a_detector_without_errors_is_ambiguous(write):
    right = ["bonafide" if label else "spoof" for label in TRUTH]
    keys = read_keys(write("keys.txt", NAMES, right, separator=" "))
    path = write("s.csv", NAMES, right, CONFIDENCE, header="file,label,score")
    scores = read_scores(path, has_keys=True)
    with pytest.raises(ScoreFileError, match=r"Its labels agree with .* Use --score_is confidence if .*score if"):
        match_keys(scores, keys)
    clips = match_keys(read_scores(path, has_keys=True, score_is="confidence"), keys)
    np.testing.assert_allclose(clips.scores, np.where(TRUTH == 1, CONFIDENCE, 1 - CONFIDENCE))
    clips = match_keys(read_scores(path, has_keys=True, score_is="score"), keys)
    assert clips.scores.tolist() == CONFIDENCE.tolist()


def test_true_labels_that_are_named_do_not_make_confidence_a_score(write):
    path = write("s.csv", NAMES, PREDICTED, CONFIDENCE, header="file,label,score")
    with pytest.raises(ScoreFileError, match="No score of"):
        read_scores(path, label_column="label")
    clips = read_scores(path, label_column="label", score_is="score")
    with_own_labels(clips)
    assert clips.scores.tolist() == CONFIDENCE.tolist()
    with pytest.raises(ScoreFileError, match="come with scores that are all above one half"):
        with_own_labels(read_scores(path, score_is="score"))


@pytest.mark.parametrize("header", ["file,prediction,score", "file,Predicted Label,Confidence", "utt,pred,p"])
def test_a_column_of_predictions_is_enough(write, header):
    clips = read_scores(write("s.csv", NAMES, PREDICTED, CONFIDENCE, header=header))
    np.testing.assert_allclose(clips.scores, P, atol=1e-12)
    assert clips.labels is None
    with pytest.raises(ScoreFileError, match="contains no true labels: add KEYS"):
        with_own_labels(clips)


@pytest.mark.parametrize(
    "header", ["file,label,prediction,score", "file,ground_truth,label,score", "file,key,label,score"]
)
def test_truth_and_predictions_in_one_file(write, header):
    truth = ["bonafide" if label else "spoof" for label in TRUTH]
    clips = read_scores(write("s.csv", NAMES, truth, PREDICTED, CONFIDENCE, header=header))
    with_own_labels(clips)
    assert clips.labels.tolist() == TRUTH.tolist()
    np.testing.assert_allclose(clips.scores, P, atol=1e-12)


@pytest.mark.parametrize("names", [("0", "1"), ("LABEL_0", "LABEL_1")])
def test_confidence_of_labels_without_a_meaning(write, keys, names):
    path = write("s.csv", NAMES, [names[int(p > 0.5)] for p in P], CONFIDENCE, header="file,label,score")
    with pytest.raises(ScoreFileError, match=r"the meaning of these labels is unclear\. Specify it with --label_map"):
        matched(path, keys)
    clips = matched(path, keys, label_map={names[0]: "spoof", names[1]: "bonafide"})
    np.testing.assert_allclose(clips.scores, P)


def test_predictions_from_the_score_itself(write, keys):
    path = write("s.csv", NAMES, PREDICTED, LOGITS, header="file,label,score")
    assert matched(path, keys).scores.tolist() == LOGITS.tolist()
    clips = read_scores(path)
    with pytest.raises(ScoreFileError, match=r"follow exactly from its scores.*Add KEYS.*--label_column"):
        with_own_labels(clips)
    with_own_labels(read_scores(path, label_column="label"))


def test_the_probability_of_spoof(write, keys):
    path = write("s.csv", NAMES, PREDICTED, 1 - P, header="file,label,score")
    with pytest.raises(ScoreFileError, match=r"labeled spoof have the higher scores\. Use --higher_is spoof"):
        matched(path, keys)
    np.testing.assert_allclose(matched(path, keys, higher_is="spoof").scores, P - 1)
    with pytest.raises(ScoreFileError, match="follow exactly from its scores"):
        with_own_labels(read_scores(path))


@pytest.mark.parametrize("name", ["p_spoof", "FakeProb", "Score (fake)", "spoof score", "logit-deepfake"])
def test_a_column_that_is_named_for_spoof(write, name):
    path = write("s.csv", NAMES, 1 - P, header=f"file,{name}")
    with pytest.raises(ScoreFileError, match=r"refers to spoof\. Use --higher_is spoof .* or --higher_is bonafide"):
        read_scores(path)
    np.testing.assert_allclose(read_scores(path, higher_is="spoof").scores, P - 1)
    np.testing.assert_allclose(read_scores(path, higher_is="bonafide").scores, 1 - P)


@pytest.mark.parametrize("name", ["anti-spoof score", "p_bonafide", "bona_fide_llr", "RealProb"])
def test_a_column_that_is_not_named_for_spoof(write, name):
    np.testing.assert_allclose(read_scores(write("s.csv", NAMES, P, header=f"file,{name}")).scores, P)


LOGIT_OF_LABEL = np.abs(LOGITS) / 2 + 1


@pytest.mark.parametrize("header", ["file,label,score", "file,predicted_label,logit"])
def test_the_logit_of_the_predicted_label_cannot_be_converted(write, keys, header):
    path = write("s.csv", NAMES, PREDICTED, LOGIT_OF_LABEL, header=header)
    for has_keys in (True, False):
        with pytest.raises(ScoreFileError, match=r"own label, such as a logit\. Such scores cannot be compared"):
            match_keys(read_scores(path, has_keys=has_keys), keys)
    assert matched(path, keys, score_is="score").scores.tolist() == LOGIT_OF_LABEL.tolist()


@pytest.mark.parametrize("values", [(0, 1), (-1, 1), (1, 2)])
def test_decisions_are_not_scores(write, values):
    path = write("s.txt", NAMES, [values[int(p > 0.5)] for p in P], separator=" ")
    with pytest.raises(ScoreFileError, match=r"These are decisions, but error rates need scores .*--score_is score"):
        read_scores(path, has_keys=True)
    assert set(read_scores(path, has_keys=True, score_is="score").scores) == set(values)


def test_predictions_without_scores(write):
    for header in ("file,prediction", "file,label"):
        with pytest.raises(ScoreFileError, match=r"none of them could be the scores.* Predicted labels cannot"):
            read_scores(write("s.csv", NAMES, PREDICTED, header=header))


def test_confidence_of_an_unknown_class(write, keys):
    with pytest.raises(ScoreFileError, match="'confidence' but no labels, so it is unknown which class"):
        read_scores(write("s.csv", NAMES, CONFIDENCE, header="file,confidence"), has_keys=True)
    clips = matched(write("s.txt", NAMES, CONFIDENCE, separator=" "), keys)
    assert "No score of" in clips.notes[-1]
    assert "write the probability of bona fide" in clips.notes[-1]


def both(p, words=("real", "fake")):
    return sorted(
        ({"label": w, "score": float(s)} for w, s in zip(words, (p, 1 - p), strict=True)), key=lambda e: -e["score"]
    )


ROWS = list(zip(NAMES, PREDICTED, CONFIDENCE, strict=True))
JSON = {
    "rows": [{"file": n, "label": w, "score": float(s)} for n, w, s in ROWS],
    "a list of one": [{"audio": {"path": f"{n}.wav"}, "pred": [{"label": w, "score": float(s)}]} for n, w, s in ROWS],
    "within rows": [{"file": n, "top": {"label": w, "score": float(s)}} for n, w, s in ROWS],
    "by id": {n: {"label": w, "score": float(s)} for n, w, s in ROWS},
    "below a name": {"results": [{"file": n, "label": w, "score": float(s)} for n, w, s in ROWS]},
    "columns": {"file": NAMES, "label": PREDICTED, "score": CONFIDENCE.tolist()},
    "best two": [{"file": n, "predictions": both(p)} for n, p in zip(NAMES, P, strict=True)],
    "best two by id": {n: both(p, ("bonafide", "spoof")) for n, p in zip(NAMES, P, strict=True)},
}


@pytest.mark.parametrize("kind", JSON)
def test_what_pipelines_return(tmp_path, keys, kind):
    texts = {".json": json.dumps(JSON[kind])}
    if isinstance(JSON[kind], list):
        texts[".jsonl"] = "\n".join(map(json.dumps, JSON[kind]))
    for suffix, text in texts.items():
        (tmp_path / f"s{suffix}").write_text(text, encoding="utf-8")
        np.testing.assert_allclose(matched(tmp_path / f"s{suffix}", keys).scores, P, atol=1e-12)


def test_both_classes_in_two_columns_or_two_lines(write, keys):
    wide = write("wide.csv", NAMES, 1 - P, P, header="file,spoof,bonafide")
    np.testing.assert_allclose(matched(wide, keys).scores, P)
    logits = write("logits.csv", NAMES, 3 - LOGITS / 2, 3 + LOGITS / 2, header="file,logit_fake,logit_real")
    np.testing.assert_allclose(matched(logits, keys).scores, LOGITS)
    lines = [(name, entry["label"], entry["score"]) for name, p in zip(NAMES, P, strict=True) for entry in both(p)]
    for columns, header in ((lines, "file,label,score"), (lines[::-1], "file,prediction,confidence")):
        clips = matched(write("long.csv", *zip(*columns, strict=True), header=header), keys)
        np.testing.assert_allclose(clips.scores, P)
        assert "has one line per class for each utterance" in clips.notes[0]


@pytest.mark.parametrize("scale", [1, 100])
def test_one_row_that_does_not_sum_to_one_does_not_change_the_others(write, scale):
    bonafide, spoof = scale * P, scale * (1 - P)
    spoof[2] += 0.01 * scale
    path = write("wide.csv", NAMES, spoof, bonafide, header="file,spoof,bonafide")
    with pytest.raises(ScoreFileError, match=rf"sum to {scale} for most .* not for 1 of {N}; the first is number 3"):
        read_scores(path)
    assert read_scores(path, score_column="bonafide").scores.tolist() == bonafide.tolist()


def test_logits_that_happen_to_sum_to_one_stay_logits(write):
    bonafide, spoof = 3 + LOGITS / 4, 3 - LOGITS / 4
    bonafide[0], spoof[0] = 0.75, 0.25
    clips = read_scores(write("s.csv", NAMES, spoof, bonafide, header="file,spoof,bonafide"))
    np.testing.assert_allclose(clips.scores, bonafide - spoof)


def test_the_form_of_scores_is_known(write, keys):
    wide = matched(write("wide.csv", NAMES, 1 - P, P, header="file,spoof,bonafide"), keys)
    logits = matched(write("logits.csv", NAMES, 3 - LOGITS, 3 + LOGITS, header="file,logit_fake,logit_real"), keys)
    spoof = matched(write("spoof.csv", NAMES, 1 - P, header="file,p_spoof"), keys, higher_is="spoof")
    confidence = matched(write("s.csv", NAMES, PREDICTED, CONFIDENCE, header="file,label,score"), keys)
    named = matched(write("named.csv", NAMES, PREDICTED, CONFIDENCE, header="file,pred,score"), keys)
    given = read_scores(write("s.csv", NAMES, PREDICTED, CONFIDENCE, header="file,label,score"), score_is="confidence")
    plain = matched(write("plain.csv", NAMES, P, header="file,score"), keys)
    forms = ["probability", "difference", "negated", "confidence", "confidence", "confidence", "as written"]
    assert [clips.score_form for clips in (wide, logits, spoof, confidence, named, given, plain)] == forms
    require_same_form(wide, "probability", "dev.csv")
    require_same_form(wide, None, "dev.csv")
    with pytest.raises(ScoreFileError, match="minus those of spoof, but those of dev"):
        require_same_form(logits, "probability", "dev.csv")


def test_true_labels_and_attacks_in_a_score_file_are_kept(write):
    truth = ["bonafide" if label else "spoof" for label in TRUTH]
    attacks = ["-" if label else "A07" for label in TRUTH]
    perfect = LOGITS + 20 * TRUTH
    for columns, header in (
        ((NAMES, attacks, truth, perfect), None),
        ((NAMES, perfect, truth), "utterance_id,score,label"),
        ((NAMES, truth, perfect), "file,cm-label,score"),
        ((NAMES, truth, P), "file,label,score"),
    ):
        clips = with_own_labels(read_scores(write("s.csv", *columns, header=header)))
        assert clips.labels.tolist() == TRUTH.tolist()
        assert bool(clips.notes) == (header == "file,label,score")  # whose labels count as the truth

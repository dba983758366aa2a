"""The verifier's score files of ASVspoof 2019 and 2021."""

import pytest

from hf_gradalign.metrics import ASVSPOOF5_ASV, AsvErrorRates
from hf_gradalign.score_files import ScoreFileError, read_asv_error_rates

TYPES = ["target", "target", "nontarget", "nontarget", "spoof", "spoof", "spoof", "spoof"]
SCORES = [3.0, 2.0, 1.0, 0.0, 4.0, 2.5, 0.5, 1.0]
# The threshold is 1.0, which is accepted.
RATES = AsvErrorRates(miss=0.0, false_alarm=0.5, spoof_false_alarm=0.75)


@pytest.fixture
def write(tmp_path):
    def write(lines, name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def test_asvspoof2019(write):
    lines = [
        f"{'A07' if kind == 'spoof' else 'human'} {kind} {score}" for kind, score in zip(TYPES, SCORES, strict=True)
    ]
    assert read_asv_error_rates(write(lines, "ASVspoof2019.LA.asv.eval.gi.trl.scores.txt")) == RATES


def trials(subset="eval"):
    keys = [f"LA_00{k % 3} LA_E_{k} alaw ita_tx A07 {kind} notrim {subset}" for k, kind in enumerate(TYPES)]
    scores = [f"LA_00{k % 3} LA_E_{k} {score}" for k, score in enumerate(SCORES)]
    return keys, scores


def test_asvspoof2021(write, tmp_path):
    keys, scores = trials()
    keys.append("LA_009 LA_E_99 alaw ita_tx bonafide target notrim progress")
    scores.append("LA_009 LA_E_99 -100.0")
    key_file = write(keys, "ASV/trial_metadata.txt")
    score_file = write(scores, "ASV/ASVTorch_Kaldi/score.txt")
    assert read_asv_error_rates(score_file) == RATES  # the keys are where the archive has them
    assert read_asv_error_rates(tmp_path / "ASV") == RATES
    assert read_asv_error_rates(tmp_path) == RATES
    assert read_asv_error_rates(write(scores, "mine/score.txt"), key_file) == RATES
    assert read_asv_error_rates(score_file, subset="all").miss == pytest.approx(1 / 3)
    with pytest.raises(ScoreFileError, match="has no trials of the subset hidden"):
        read_asv_error_rates(score_file, subset="hidden")


def test_with_a_header(write):
    lines = ["spk\tfilename\tcm-score\tasv-score\tasv-label"]
    lines += [f"s\tu{k}\t-\t{s}\t{t}" for k, (s, t) in enumerate(zip(SCORES, TYPES, strict=True))]
    assert read_asv_error_rates(write(lines, "asv.tsv")) == RATES


@pytest.mark.parametrize(
    ("scored", "keyed"),
    [
        ("{s} LA_E_{k} {score}", "{s} LA_E_{k} {kind}"),
        ("LA_E_{k} {score}", "{s} LA_E_{k} {kind} eval"),
        ("{score} LA_E_{k} {s}", "LA_E_{k} {s} {kind}"),
    ],
)
def test_trials_in_another_order(write, scored, keyed):
    rows = [
        {"s": f"s{k % 3}", "k": k % 4 if "{s} LA" in scored else k, "kind": kind, "score": score}
        for k, (kind, score) in enumerate(zip(TYPES, SCORES, strict=True))
    ]  # the same utterance may have been tried with several speakers
    scores, keys = ([form.format(**row) for row in rows] for form in (scored, keyed))
    assert read_asv_error_rates(write(scores, "score.txt"), write(keys[::2] + keys[::-2], "keys.txt")) == RATES


def test_trials_of_other_utterances_are_refused(write):
    keys, scores = trials()  # of three speakers in the same order
    scores[5] = scores[5].replace("LA_E_", "DF_E_")
    with pytest.raises(ScoreFileError, match=r"same values as column_2 .* \(such as DF_E_5\), and column_1 .* apart"):
        read_asv_error_rates(write(scores, "score.txt"), write(keys, "keys.txt"))


def test_speakers_in_another_order(write):
    scores = [f"s{k // 4} u{k % 4} {score}" for k, score in enumerate(SCORES)]  # two speakers of each utterance
    keys = [f"s{k // 4} u{k % 4} {kind}" for k, kind in enumerate(TYPES)]
    assert read_asv_error_rates(write(scores, "score.txt"), write(keys[4:] + keys[:4], "keys.txt")) == RATES


def test_by_name():
    assert read_asv_error_rates("asvspoof5") == ASVSPOOF5_ASV


def test_refusals(write):
    keys, scores = trials()
    with pytest.raises(ScoreFileError, match=r"there is no trial_metadata.txt in its folder or .*--asv_keys"):
        read_asv_error_rates(write(scores, "alone/deep/score.txt"))
    score_file = write(scores, "score.txt")
    with pytest.raises(ScoreFileError, match=r"has 8 trials but .* has 7: they belong to different"):
        read_asv_error_rates(score_file, write(keys[:-1], "fewer.txt"))
    twice = [scores, keys]
    twice = [[line.replace("LA_E_7", "LA_E_1").replace("LA_002 ", "LA_001 ") for line in lines] for lines in twice]
    with pytest.raises(
        ScoreFileError, match=r"Line 1 of .* is LA_000 LA_E_0, but that of .* is LA_001 LA_E_1\. .* once"
    ):
        read_asv_error_rates(write(twice[0], "twice.txt"), write(twice[1][::-1], "reversed.txt"))
    with pytest.raises(ScoreFileError, match="unknown which trial each score belongs to"):
        read_asv_error_rates(write([line.split()[-1] + " x" for line in scores], "nameless.txt"), write(keys, "k.txt"))
    with pytest.raises(ScoreFileError, match="has no column with trial types"):
        read_asv_error_rates(score_file, write(scores, "not_keys.txt"))
    with pytest.raises(ValueError, match="of type nontarget"):
        read_asv_error_rates(write(["a target 1", "b spoof 2"], "no_nontargets.txt"))

"""Evaluations of clips and trials, and their tables."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from hf_gradalign.metrics import (
    ASVSPOOF5_AGNOSTIC_COSTS,
    METRICS,
    AsvErrorRates,
    bootstrap_intervals,
    equal_error_rate,
    min_agnostic_detection_cost,
    min_tandem_detection_cost,
)
from hf_gradalign.score_files import (
    Clips,
    ScoreFileError,
    Settings,
    breakdown_table,
    compare_clips,
    comparison_table,
    describe_costs,
    described,
    evaluate_clips,
    evaluate_trials,
    metrics_of,
    overall_table,
    report,
)

RNG = np.random.default_rng(0)
LABELS = np.tile([0, 1], 100)
SCORES = RNG.normal(size=200) + 2 * LABELS
ASV = AsvErrorRates(0.02, 0.05, 0.4)


def make_clips(scores=SCORES, labels=LABELS, **columns):
    names = pa.array([f"u{k}" for k in range(len(scores))])
    columns = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return Clips("some.txt", names, scores=scores, labels=labels, columns=columns, notes=("a note",))


def test_values_and_intervals():
    settings = Settings(threshold=1.0, asv=ASV, n_draws=40)
    result = evaluate_clips(make_clips(), settings)
    assert list(result.rows) == [
        *(*METRICS, "min_tdcf", "min_tdcf_2019"),
        *("accuracy", "balanced_accuracy", "f1", "f1_spoof", "f1_macro"),
        *("false_rejection_rate", "false_acceptance_rate"),
    ]
    official = equal_error_rate(SCORES, LABELS)
    assert result.rows["eer"].value == official["eer"]
    assert result.eer_threshold == official["threshold"]
    assert result.rows["min_tdcf"].value == min_tandem_detection_cost(SCORES, LABELS, ASV)["min_tdcf"]
    for row in result.rows.values():
        assert row.interval.low <= row.value <= row.interval.high
    assert (result.n_bonafide, result.n_spoof) == (100, 100)
    assert result.notes == ["a note"]
    assert result.problems == []
    assert evaluate_clips(make_clips(-SCORES), Settings(n_draws=0)).problems[0].endswith("must mean bona fide.")


def test_only_what_was_asked_for():
    result = evaluate_clips(make_clips(), Settings(n_draws=0))
    assert list(result.rows) == list(METRICS)
    assert all(row.interval is None for row in result.rows.values())
    assert result.breakdowns == {}
    text = overall_table(result)
    assert "interval" not in text
    assert f" {100 * result.rows['eer'].value:.3f} |" in text
    assert "Intervals" not in described(result)


def test_tables_can_be_read():
    settings = Settings(n_draws=20, by=("system", "codec"), confidence=0.9)
    attacks = np.where(LABELS == 1, "-", np.where(np.arange(200) % 4 < 2, "A1", "A2"))
    codecs = np.where(np.arange(200) < 199, "none", "rare")
    result = evaluate_clips(make_clips(system=attacks, codec=codecs), settings)
    lines = overall_table(result).splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert "90 % interval" in lines[0]
    assert lines[2].startswith("| EER (%) ")
    low, high = result.rows["cllr"].interval.low, result.rows["cllr"].interval.high
    assert f"{low:.5f} to {high:.5f}" in overall_table(result)
    assert "some.txt: 100 bona fide and 100 spoofed clips. Intervals: bootstrap of clips" in described(result)
    by_attack = breakdown_table("system", result.breakdowns["system"], metrics_of(settings))
    assert "spoofed clips of each value against all bona fide clips" in by_attack
    assert [line.split("|")[1].strip() for line in by_attack.splitlines()[4:]] == ["A1", "A2", "(mean)"]
    rates = [group.metrics["eer"] for group in result.breakdowns["system"].groups]
    assert result.as_dict()["breakdowns"]["system"]["means"]["eer"] == pytest.approx(np.mean(rates))
    assert f" {100 * np.mean(rates):.3f} |" in by_attack.splitlines()[-1]
    by_codec = breakdown_table("codec", result.breakdowns["codec"], metrics_of(settings))
    assert "clips of each value against each other" in by_codec
    assert by_codec.splitlines()[-2].count("n/a") == 3
    assert f" {100 * result.breakdowns['codec'].groups[0].metrics['eer']:.3f} |" in by_codec.splitlines()[-1]


def test_json_has_no_nan():
    result = evaluate_clips(make_clips(codec=["a"] * 199 + ["b"]), Settings(n_draws=5, by=("codec",), asv=ASV))
    text = json.dumps(result.as_dict(), allow_nan=False)
    content = json.loads(text)
    assert content["metrics"]["eer"]["value"] == result.rows["eer"].value
    assert content["metrics"]["eer"]["low"] == result.rows["eer"].interval.low
    assert content["breakdowns"]["codec"]["groups"][1]["metrics"]["eer"] is None
    assert content["settings"]["asv"] == {"miss": 0.02, "false_alarm": 0.05, "spoof_false_alarm": 0.4}
    assert content["eer_threshold"] == result.eer_threshold


def test_over_speakers():
    clips = make_clips(speaker=[f"s{k // 20}" for k in range(200)])
    result = evaluate_clips(clips, Settings(n_draws=20, over="speaker"))
    assert "bootstrap of the values of speaker, 20 draws" in described(result)
    assert result.rows["eer"].interval != evaluate_clips(clips, Settings(n_draws=20)).rows["eer"].interval
    with pytest.raises(ScoreFileError, match=r"no column 'talker' \(--bootstrap_over\) .* Available columns: speaker"):
        evaluate_clips(clips, Settings(over="talker"))
    with pytest.raises(ScoreFileError, match=r"no column 'codec' \(--by\)"):
        evaluate_clips(clips, Settings(by=("codec",)))


def test_spoofs_alone():
    spoofs = make_clips(SCORES[LABELS == 0], LABELS[LABELS == 0])
    with pytest.raises(ScoreFileError, match=r"All 100 clips of some.txt are spoofed, .* pass a --threshold"):
        evaluate_clips(spoofs)
    result = evaluate_clips(spoofs, Settings(threshold=1.0))
    row = result.rows["spoof_acceptance_rate"]
    assert row.value == np.mean(SCORES[LABELS == 0] >= 1.0)
    assert row.interval.low < row.value < row.interval.high
    assert result.eer_threshold is None
    json.dumps(result.as_dict(), allow_nan=False)


def test_one_class_by_column_and_without_errors():
    systems = [f"A{k % 11}" for k in range(100)]
    spoofs = make_clips(SCORES[LABELS == 0], LABELS[LABELS == 0], system=systems)
    result = evaluate_clips(spoofs, Settings(threshold=0.5, by=("system",), n_draws=20))
    groups = result.breakdowns["system"].groups
    assert [group.value for group in groups] == [f"A{k}" for k in range(11)]
    assert [group.n_spoof for group in groups] == [10] + 10 * [9]
    shares = [np.mean(SCORES[LABELS == 0][k::11] >= 0.5) for k in range(11)]
    assert [group.metrics["spoof_acceptance_rate"] for group in groups] == pytest.approx(shares)
    table = breakdown_table("system", result.breakdowns["system"], result.rows)
    assert "By system, clips of each value:" in table
    (problem,) = evaluate_clips(spoofs, Settings(threshold=9.0, n_draws=20)).problems
    assert "No clip is wrong" in problem
    assert "With 100 clips, a true rate that is 3 points away" in problem
    bonafide = make_clips(SCORES[LABELS == 1], LABELS[LABELS == 1])
    rows = evaluate_clips(bonafide, Settings(threshold=1.0, n_draws=20)).rows
    assert rows["false_rejection_rate"].value == np.mean(SCORES[LABELS == 1] < 1.0)
    with pytest.raises(ScoreFileError, match=r"are bona fide, .* share of them that is rejected, pass a --threshold"):
        evaluate_clips(bonafide)


def test_small_samples_of_one_class():
    scores = np.arange(100.0)
    spoofs = make_clips(scores, np.zeros(100, dtype=int), speaker=[f"s{k % 9}" for k in range(100)])
    assert evaluate_clips(spoofs, Settings(threshold=95, n_draws=20)).problems == []
    for threshold, expected in ((96, "Only 4 of the 100 clips are wrong."), (1, "Only 1 of the 100 clips is right.")):
        (problem,) = evaluate_clips(spoofs, Settings(threshold=threshold, n_draws=20)).problems
        assert problem.startswith(expected)
    (problem,) = evaluate_clips(spoofs, Settings(threshold=50, n_draws=20, over="speaker")).problems
    assert problem.startswith("The clips are of only 9 speakers")
    problem, _ = evaluate_clips(spoofs, Settings(threshold=100, n_draws=20, over="speaker")).problems
    assert "With 9 speakers (or other values that are drawn) whose clips are alike, a true rate that is 28" in problem


def test_small_samples_and_probabilities_are_reported():
    result = evaluate_clips(make_clips(SCORES + 9 * LABELS), Settings(n_draws=5))
    assert any("The scores separate the classes" in problem for problem in result.problems)
    assert evaluate_clips(make_clips(SCORES + 9 * LABELS), Settings(n_draws=0)).problems == []
    clips = make_clips(speaker=[f"s{k // 50}" for k in range(200)])
    (problem,) = evaluate_clips(clips, Settings(n_draws=5, over="speaker")).problems
    assert "Only 4 of the speakers" in problem
    (problem,) = evaluate_clips(make_clips(1 / (1 + np.exp(-SCORES))), Settings(n_draws=0)).problems
    assert "as probabilities do" in problem


def test_costs_and_thresholds_are_named():
    result = evaluate_clips(make_clips(), Settings(n_draws=5, asv=ASV, threshold=0.25))
    first, second = describe_costs(result).splitlines()
    assert first == "minDCF, actDCF: p_spoof 0.05, c_miss 1, c_fa 10."
    assert second.startswith("min t-DCF, min t-DCF (2019): p_target 0.9405, p_nontarget 0.0095, p_spoof 0.05")
    assert result.as_dict()["costs"]["min_dcf"] == {"p_spoof": 0.05, "c_miss": 1.0, "c_fa": 10.0}
    text = described(result)
    assert "5 draws, seed 0; those of minDCF, min t-DCF, min t-DCF (2019) tend to be too narrow." in text
    assert text.endswith("Threshold of decisions: 0.25 (this score or more is accepted).")


def test_columns_by_the_names_in_files():
    clips = make_clips(system=["-" if label else "A1" for label in LABELS])
    result = evaluate_clips(clips, Settings(n_draws=0, by=("attack",)))
    assert [group.value for group in result.breakdowns["attack"].groups] == ["A1"]


def test_two_systems():
    settings = Settings(n_draws=50)
    result = compare_clips(make_clips(), SCORES - LABELS, settings)
    assert list(result) == list(metrics_of(settings))
    assert result["eer"].p_value < 0.05
    table = comparison_table(result, metrics_of(settings))
    assert f" {100 * result['eer'].difference:.3f} |" in table
    assert f"{result['cllr'].low:.5f} to {result['cllr'].high:.5f}" in table
    same = comparison_table(compare_clips(make_clips(), SCORES, settings), metrics_of(settings))
    assert same.splitlines()[1].split("|")[-2].strip() == "-:"  # above p-values of 1; Markdown requires a hyphen


def test_trials():
    types = np.tile(["target", "nontarget", "spoof", "target"], 50)
    scores = RNG.normal(size=200) + 2 * (types == "target")
    clips = Clips(
        "sasv.txt", pa.array([f"u{k}" for k in range(200)]), scores=scores, labels=np.ones(200), trial_types=types
    )
    result = evaluate_trials(clips, Settings(n_draws=20))
    assert result.rows["a_dcf"].value == min_agnostic_detection_cost(scores, types)["a_dcf"]
    expected = min_agnostic_detection_cost(scores, types, costs=ASVSPOOF5_AGNOSTIC_COSTS)["a_dcf"]
    assert result.rows["a_dcf_asvspoof5"].value == expected
    spoofs = types != "nontarget"
    expected = equal_error_rate(scores[spoofs], (types[spoofs] == "target").astype(int))["eer"]
    assert result.rows["spf_eer"].value == expected
    others = types != "spoof"
    expected = equal_error_rate(scores[others], (types[others] == "target").astype(int))["eer"]
    assert result.rows["sv_eer"].value == expected
    assert result.rows["sasv_eer"].value == equal_error_rate(scores, (types == "target").astype(int))["eer"]
    assert all(row.interval.low <= row.value <= row.interval.high for row in result.rows.values())
    assert (result.n_bonafide, result.n_spoof) == (150, 50)
    assert described(result).startswith("sasv.txt: 100 target, 50 non-target and 50 spoofed trials.")
    assert result.as_dict()["n_trials"] == {"target": 100, "nontarget": 50, "spoof": 50}
    assert result.problems == []
    # The same draws and values as with a function of scores and types.
    for name, function in (
        ("a_dcf", lambda own, kinds: min_agnostic_detection_cost(own, kinds)["a_dcf"]),
        ("sasv_eer", lambda own, kinds: METRICS["eer"](own, (kinds == "target").astype(int))),
    ):
        (expected,) = bootstrap_intervals(function, scores, types, n_draws=20).values()
        assert result.rows[name].interval == expected
    inverted = evaluate_trials(replace(clips, scores=-scores), Settings(n_draws=0))
    assert "Targets against all other trials: The equal error rate is" in inverted.problems[0]
    separated = evaluate_trials(replace(clips, scores=scores + 9 * (types == "target")), Settings(n_draws=2))
    assert "With 100 target and 100 other trials, true error rates" in separated.problems[0]


def test_draws_without_a_type_of_trials_are_skipped():
    types = np.repeat(["target", "nontarget", "spoof"], [60, 30, 10])
    clips = Clips(
        "sasv.txt",
        pa.array([f"u{k}" for k in range(100)]),
        scores=RNG.normal(size=100),
        labels=np.ones(100),
        trial_types=types,
        columns={"speaker": pa.array([f"s{k // 10}" for k in range(100)])},
    )
    with pytest.warns(UserWarning, match=r"a_dcf is undefined in \d+ of 30 bootstrap draws"):
        result = evaluate_trials(clips, Settings(n_draws=30, over="speaker"))
    assert result.rows["a_dcf"].interval.n_draws < 30


def test_names_stay_in_their_cells():
    lines = report.markdown_table(["sys|tem", "n"], [["a|b\nc\x1b[31m", "1"]]).splitlines()
    assert [line.count(" | ") for line in lines] == [1, 1, 1]
    assert r"a\|b c" in lines[2]
    assert "\x1b" not in lines[2]

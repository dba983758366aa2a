"""From scores to the Arena's forms: what it would refuse is refused here, and other files do not change."""

import hashlib
import math
import shutil
from datetime import date

import pytest
import yaml
from arena_world import (
    COMMIT,
    LABELS,
    brute_force_eer_percent,
    check_badge,
    check_run_record,
    check_submission,
    make_model_folder,
    make_scores,
)
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from tiny_detectors import make_detector

from hf_gradalign.hub import ModelCardFacts, write_model_card
from hf_gradalign.hub.arena import (
    ArenaDataset,
    ArenaError,
    Calibration,
    badge,
    describe_system,
    evaluate_scores,
    submission,
    write_arena_results,
)

DATASET = ArenaDataset(id="SpeechAntiSpoofingBenchmarks/InTheWild", revision=COMMIT, labels=LABELS)
ADDRESS = f"https://huggingface.co/you/model/resolve/{COMMIT}/.eval_results/{DATASET.id}/scores.txt"
SUBMITTER = {"hf_username": "you", "contact": "you@example.com", "submitted_at": date(2026, 3, 4)}


@pytest.fixture
def model(tmp_path):
    return make_model_folder(tmp_path / "My Model_2")


@pytest.fixture
def system(model):
    return describe_system(model, repo_id="you/My-Model_2", paper_arxiv="2509.20682")


def test_scores_and_record(model, system):
    scores = make_scores()
    written = write_arena_results(model, scores, DATASET, system)
    folder = model / ".eval_results" / "SpeechAntiSpoofingBenchmarks" / "InTheWild"
    assert written.folder == folder
    assert sorted(path.name for path in folder.iterdir()) == ["result.yaml", "scores.txt"]
    text = (folder / "scores.txt").read_text()
    assert text == "".join(f"{name} {scores[name]:.6f}\n" for name in LABELS)
    record = yaml.safe_load((folder / "result.yaml").read_text())
    check_run_record(record)
    assert record["system"]["name"] == "My-Model_2"
    assert record["dataset"] == {"id": DATASET.id, "revision": COMMIT, "split": "test"}
    assert record["artifact"]["scores_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert record["artifact"]["bench_version"].startswith("hf_gradalign==")
    assert record["scores"]["n_trials"] == 60
    assert record["scores"]["n_skipped"] == 0
    expected = brute_force_eer_percent(*by_class(text))
    assert record["scores"]["eer_percent"] == pytest.approx(expected, abs=1e-9)
    assert 10 < expected < 40


def by_class(text):
    rows = [line.split() for line in text.splitlines()]
    return tuple([float(score) for name, score in rows if LABELS[name] == label] for label in (1, 0))


# Few different scores, so that there are ties. A difference beyond the sixth decimal makes another one.
@pytest.mark.filterwarnings("ignore::UserWarning")  # of the ties
@given(st.lists(st.sampled_from([-1.0, 0.0, 1e-7, 0.5, 2.0]), min_size=60, max_size=60))
def test_the_error_rate_is_that_of_the_scores_as_they_are_written(values):
    judged = evaluate_scores(dict(zip(LABELS, values, strict=True)), DATASET)
    expected = brute_force_eer_percent(*by_class(judged.text))
    assert judged.metrics["eer_percent"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the ties
def test_scores_that_six_decimals_make_equal_are_refused():
    scores = make_scores()
    expected = evaluate_scores(scores, DATASET).metrics["eer_percent"]
    tiny = {name: 1e-9 * score for name, score in scores.items()}
    with pytest.raises(
        ArenaError, match=rf"most scores are equal, .* 50\.0000 instead of {expected:.2f}.*: multiply all"
    ):
        evaluate_scores(tiny, DATASET)
    spoof_only = ArenaDataset(id="lab/spoof-only", revision=COMMIT, labels=dict.fromkeys(scores, 0))
    ascending = {name: 1e-9 * index for index, name in enumerate(scores)}
    with pytest.raises(ArenaError, match=r"srr_complement is 0\.0000 instead of 50\.0000"):
        evaluate_scores(ascending, spoof_only, Calibration("o/calibration", 29.5e-9))
    # Most of these are equal too, but far from where errors are counted.
    saturated = {
        name: score if -1 < score < 1 else math.copysign(5 + 1e-9 * score, score) for name, score in scores.items()
    }
    assert evaluate_scores(saturated, DATASET).metrics["eer_percent"] == pytest.approx(expected)


def test_clips_without_a_finite_score_are_skipped_up_to_a_twentieth():
    scores = make_scores()
    scores["clip_001"], scores["clip_002"] = math.nan, -math.inf
    del scores["clip_007"]
    judged = evaluate_scores(scores, DATASET)
    assert (judged.n_trials, judged.n_skipped) == (60, 3)
    assert len(judged.text.splitlines()) == 57
    assert "nan" not in judged.text
    del scores["clip_008"]
    with pytest.raises(ArenaError, match=r"4 of 60 clips .* have no score, such as clip_001, clip_002, clip_007"):
        evaluate_scores(scores, DATASET)


def test_scores_of_something_else_are_refused():
    with pytest.raises(ArenaError, match=r"1 of 61 scored clips are not in SpeechAntiSpoofingBenchmarks/InTheWild"):
        evaluate_scores({**make_scores(), "other": 1.0}, DATASET)
    blank = ArenaDataset(id="o/s", revision=COMMIT, labels={"a b": 1, "c": 0})
    with pytest.raises(ArenaError, match="do not allow utterance ids with spaces, such as 'a b'"):
        evaluate_scores({"a b": 1.0, "c": 0.0}, blank)


def test_one_class_needs_a_threshold_from_elsewhere():
    labels = dict.fromkeys(["a", "b", "c", "d"], 0)
    spoof_only = ArenaDataset(id="lab/spoof-only", revision=COMMIT, labels=labels)
    scores = {"a": -1.0, "b": 0.25, "c": 0.5, "d": 2.0}
    with pytest.raises(ArenaError, match="--calibration_threshold"):
        evaluate_scores(scores, spoof_only)
    judged = evaluate_scores(scores, spoof_only, Calibration("o/calibration", 0.25))
    assert judged.metrics == {"srr_complement": 75.0}
    assert judged.threshold is None
    with pytest.raises(ArenaError, match="not a finite number"):
        evaluate_scores(scores, spoof_only, Calibration("o/calibration", math.nan))
    needs_both = ArenaDataset(id="o/s", revision=COMMIT, labels=labels, metrics=["eer_percent"])
    with pytest.raises(ArenaError, match="needs scored clips of both classes"):
        evaluate_scores(scores, needs_both)


def test_a_detector_on_raw_waveforms_has_no_encoder(tmp_path):
    make_detector("sinc").save_pretrained(tmp_path / "raw")
    assert describe_system(tmp_path / "raw").description.startswith(
        "sinc filters, aasist head, 0.00 million parameters"
    )


def test_all_three_forms_hold_the_arenas_keys_and_no_others(model, system):
    written = write_arena_results(model, make_scores(), DATASET, system)
    check_badge(badge(written.record, ADDRESS))
    proposed = submission(written.record, system, ADDRESS, **SUBMITTER)
    check_submission(yaml.safe_load(yaml.safe_dump(proposed)))
    assert proposed["scores"] == written.record["scores"]
    assert proposed["submitted_at"] == "2026-03-04"
    assert proposed["system"]["params_millions"] == 0.02
    assert proposed["system"]["slug"] == "my-model-2"
    about = proposed["system"]["description"]
    assert about == "wav2vec2 encoder, aasist head, 0.02 million parameters; hf_gradalign"
    assert proposed["system"]["code"] == proposed["system"]["checkpoint"] == "https://huggingface.co/you/My-Model_2"
    assert proposed["system"]["paper"]["bibtex"].startswith("@inproceedings{truong2026addressing,")
    calibrated = submission(
        written.record, system, ADDRESS, **SUBMITTER, calibration=Calibration("o/both", 0.5), notes="as it was saved"
    )
    check_submission(calibrated, "calibration", "notes")
    assert calibrated["calibration"] == {"source_dataset": "o/both", "threshold": 0.5}


def test_a_system_without_a_paper_is_submitted_and_gets_no_badge(model):
    system = describe_system(model, repo_id="you/model", name="Ours")
    written = write_arena_results(model, make_scores(), DATASET, system)
    check_run_record(written.record)
    check_submission(submission(written.record, system, ADDRESS, **SUBMITTER), paper=False)
    with pytest.raises(ArenaError, match="--paper_arxiv"):
        badge(written.record, ADDRESS)


def test_what_a_submission_lacks_is_named(model, system):
    written = write_arena_results(model, make_scores(), DATASET, system)
    for address in (ADDRESS.replace(COMMIT, "main"), ADDRESS.replace("huggingface.co", "example.com"), "scores.txt"):
        with pytest.raises(ArenaError, match="does not name a commit"):
            submission(written.record, system, address, **SUBMITTER)
        with pytest.raises(ArenaError, match="does not name a commit"):
            badge(written.record, address)
    unknown = describe_system(model, paper_arxiv="2110.01200")
    with pytest.raises(ArenaError, match="a submission needs --code, --checkpoint, --contact, --paper_bibtex"):
        submission(written.record, unknown, ADDRESS, **{**SUBMITTER, "contact": ""})


def test_systems_are_checked(tmp_path, model):
    with pytest.raises(ArenaError, match=r"is not a model's folder: it has no config\.json"):
        describe_system(tmp_path)
    with pytest.raises(ArenaError, match="'My Model' is not a slug"):
        describe_system(model, slug="My Model")
    with pytest.raises(ArenaError, match="'arxiv:2509' is not an arXiv number"):
        describe_system(model, paper_arxiv="arxiv:2509")
    with pytest.raises(ArenaError, match="also needs the paper's arXiv number"):
        describe_system(model, paper_bibtex="@misc{x}")
    (model / "model.safetensors").unlink()
    assert describe_system(model).params_millions is None


def test_a_score_file_of_the_tools_own_run_keeps_the_tools_version(tmp_path, model, system):
    run = tmp_path / "results" / "InTheWild"
    run.mkdir(parents=True)
    (run / "scores.txt").write_text("".join(f"{name} {score:.6f}\n" for name, score in make_scores().items()))
    (run / "result.yaml").write_text("artifact: {bench_version: speech-spoof-bench==0.4.1}\n")
    written = write_arena_results(model, run / "scores.txt", DATASET, system)
    assert written.record["artifact"]["bench_version"] == "speech-spoof-bench==0.4.1"
    assert (written.folder / "scores.txt").read_bytes() == (run / "scores.txt").read_bytes()
    shutil.copy(written.folder / "scores.txt", run)
    (run / "result.yaml").write_text("- nothing\n")
    assert (
        write_arena_results(model, run / "scores.txt", DATASET, system)
        .record["artifact"]["bench_version"]
        .startswith("hf_gradalign==")
    )


def test_score_files_of_other_forms_are_taken(tmp_path, model, system):
    """With further columns, from `score_audio_spoof.py --columns`; in another order; with more decimals."""
    path, scores = tmp_path / "scores.tsv", make_scores()
    rows = [f"{name}\t{scores[name]!r}\t{('spoof', 'bonafide')[LABELS[name]]}\n" for name in reversed(LABELS)]
    path.write_text("utterance_id\tscore\tlabel\n" + "".join(rows))
    written = write_arena_results(model, path, DATASET, system)
    assert written.scores == evaluate_scores(scores, DATASET)
    path.write_text(path.read_text() + f"clip_000\t{scores['clip_000'] + 1}\tbonafide\n")
    with pytest.raises(ValueError, match="clip_000' has two values of the score"):
        write_arena_results(model, path, DATASET, system)


def test_refused_scores_leave_the_folder_as_it_was(model, system):
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    with pytest.raises(ArenaError):
        write_arena_results(model, {"clip_000": 1.0}, DATASET, system)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == before


def test_the_card_says_the_result_as_a_fraction(model, system):
    written = write_arena_results(model, make_scores(), DATASET, system)
    result = ModelCard.load(model / "README.md").data.eval_results[-1]
    assert (result.dataset_type, result.dataset_split, result.dataset_revision) == (DATASET.id, "test", COMMIT)
    assert (result.metric_type, result.source_name) == ("eer", "Speech Anti-Spoofing Arena")
    assert result.metric_value == pytest.approx(written.record["scores"]["eer_percent"] / 100, abs=1e-8)
    assert result.source_url.endswith("?system=my-model-2")
    untouched = (model / "README.md").read_bytes()
    write_arena_results(model, make_scores(seed=1), DATASET, system, update_card=False)
    assert (model / "README.md").read_bytes() == untouched


def test_a_runs_own_card_keeps_what_the_run_found(model, system):
    facts = ModelCardFacts(model_name="mine", dataset_name="Corpus", results={"test": {"eer": 0.125}}, license="mit")
    path = write_model_card(model, facts)
    before = ModelCard.load(path)
    write_arena_results(model, make_scores(), DATASET, system)
    after = ModelCard.load(path)
    assert after.data.eval_results[:-1] == before.data.eval_results
    assert (after.data.model_name, after.data.license, after.text) == ("mine", "mit", before.text)

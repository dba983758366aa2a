"""The script without the Hub: what it writes, says and refuses."""

import pytest
import yaml
from arena_world import COMMIT, LABELS, check_run_record, make_dataset_folder, make_model_folder, make_scores


@pytest.fixture
def words(tmp_path):
    """Arguments for a run and a dataset on disk."""
    make_model_folder(tmp_path / "model")
    make_dataset_folder(tmp_path / "set")
    lines = [f"{name} {score:.6f}\n" for name, score in make_scores().items()]
    (tmp_path / "scores.txt").write_text("".join(lines))
    words = [tmp_path / "model", "--scores", tmp_path / "scores.txt", "--dataset", "o/set", "--revision", COMMIT]
    return [*map(str, words), "--dataset_folder", str(tmp_path / "set")]


@pytest.fixture
def run(load_script, capsys):
    script = load_script("write_arena_results")

    def run(*words):
        try:
            status = script.main(words)
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_writes_and_says_what_it_found(run, words, tmp_path):
    status, out, err = run(*words)
    assert (status, err) == (0, "")
    record = yaml.safe_load((tmp_path / "model" / ".eval_results" / "o" / "set" / "result.yaml").read_text())
    check_run_record(record)
    assert (
        f"o/set at 0123456789ab: eer_percent {record['scores']['eer_percent']:.4f}\n60 of 60 clips have a score" in out
    )
    assert "threshold at the equal error rate: 0." in out


def test_warnings_are_lines(run, words, tmp_path):
    (tmp_path / "scores.txt").write_text("".join(f"{name} 0.25\n" for name in make_scores()))
    status, _, err = run(*words)
    assert status == 0
    assert err.startswith("warning: All 60 scores are equal (0.25)")
    assert err.count("\n") == 1


def test_spoof_only_data_sets_take_the_threshold_of_another(run, words, tmp_path):
    spoof_only = {name: 0 for name, label in LABELS.items() if label == 0}
    folder = make_dataset_folder(tmp_path / "spoof", spoof_only, metrics="[srr_complement]")
    lines = [f"{name} {place / 8}\n" for place, name in enumerate(spoof_only)]
    (tmp_path / "scores.txt").write_text("".join(lines))
    status, _, err = run(*words, "--dataset_folder", str(folder))
    assert (status, "on another data set with --calibration_threshold" in err) == (2, True)
    status, out, _ = run(*words, "--dataset_folder", str(folder), "--calibration_threshold", "3.75")
    assert status == 0
    assert "srr_complement 25.0000" in out


@pytest.mark.parametrize(
    ("more", "trouble"),
    [
        (["--slug", "No Slug"], "'No Slug' is not a slug"),
        (["--revision", "0123"], "pass the one that was scored with --revision"),
        (["--scores", "nowhere.txt"], "There is no file nowhere.txt"),
        (["--paper_arxiv", "2509.20682", "--paper_bibtex", "nowhere.bib"], "nowhere.bib"),
        (["--push_to_hub"], "need --hub_model_id namespace/name"),
        (["--push_to_hub", "--hub_model_id", "name"], "--hub_model_id must be namespace/name"),
        (["--submission", "a.yaml", "--hub_model_id", "a/b"], "needs --scores, --dataset, --hub_username"),
    ],
)
def test_what_is_wrong_is_said(run, words, monkeypatch, more, trouble):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    status, out, err = run(*words, *more)
    assert (status, out) == (2, "")
    assert trouble.replace("hub_username", "hf_username") in err


def test_there_must_be_something_to_do(run, words):
    assert run(words[0])[0] == 2
    assert "--scores and --dataset go together" in run(*words[:3])[2]


@pytest.mark.parametrize(
    ("name", "content", "trouble"),
    [
        ("config.json", '{"a":', "config.json is truncated or not JSON"),
        ("config.json", "[1]", "config.json is JSON, but not an object"),
        ("model.safetensors", "\x10\0\0\0\0\0\0\0{", "the weights in "),
        (".eval_results", "", "a file is where a folder should be"),
    ],
)
def test_edited_files_of_the_model_are_told(run, words, tmp_path, name, content, trouble):
    (tmp_path / "model" / name).write_text(content)
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert trouble in err


def test_an_edited_record_is_told(run, words, tmp_path):
    assert run(*words)[0] == 0
    record = tmp_path / "model" / ".eval_results" / "o" / "set" / "result.yaml"
    for content in ("dataset: 3", "[1]", "a: &a [*a]", "a" * 3_000_000):
        record.write_text(content)
        status, _, err = run(words[0], "--push_to_hub", "--hub_model_id", "a/b")
        assert status == 2
        assert err.startswith(f"error: {record}")


@pytest.mark.parametrize(
    ("name", "content"), [("scores.txt", "mine 1.0"), ("result.yaml", "mine: 1"), ("result.yaml", "[")]
)
def test_what_is_no_result_is_not_replaced(run, words, tmp_path, name, content):
    folder = tmp_path / "model" / ".eval_results" / "o" / "set"
    folder.mkdir(parents=True)
    (folder / name).write_text(content)
    card = (tmp_path / "model" / "README.md").read_bytes()
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert f"{folder / name} already exists" in err or f"{folder / name} exists and was not written" in err
    assert "--overwrite" in err
    assert (folder / name).read_text() == content
    assert (tmp_path / "model" / "README.md").read_bytes() == card
    assert run(*words, "--overwrite")[0] == 0
    assert run(*words)[0] == 0  # a result is replaced by a newer one


def test_a_submission_replaces_no_other_file(run, words, tmp_path):
    (tmp_path / "a.yaml").write_text("learning_rate: 1")
    who = ["--hub_model_id", "a/b", "--hf_username", "a", "--contact", "c"]
    status, _, err = run(*words, "--submission", str(tmp_path / "a.yaml"), *who)
    assert status == 2
    assert (
        "a.yaml exists and was not written by this command: choose another name, or replace it with --overwrite" in err
    )
    assert not (tmp_path / "model" / ".eval_results").exists()  # it was seen first

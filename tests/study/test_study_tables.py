import errno
import shutil

import pyarrow as pa
import pytest
from datasets import Dataset
from pyarrow import parquet

from hf_gradalign.study import Study, StudyError, StudyTables, rebuild_tables
from hf_gradalign.study.comparison import StudyResults
from hf_gradalign.study.definition import EvaluationSet
from hf_gradalign.study.table_files import SCHEMAS, require_same_clips


def test_one_row_per_trial_and_evaluation_set(finished_study, small_study):
    rows = parquet.read_table(finished_study / "results.parquet").to_pylist()
    assert len(rows) == 24
    first = rows[0]
    assert (first["method"], first["batch_size"], first["seed"], first["evaluation_set"]) == ("dual_path", 5, 0, "test")
    assert len(first["scores"]) == 60
    assert first["n_forward_passes"] == 200
    assert [row["cell"] for row in rows[::2]] == [trial.id for trial in small_study.trials]
    epochs = parquet.read_table(finished_study / "epochs.parquet").to_pylist()
    assert len(epochs) == 8 * 2 + 2 * 2 + 2 * 4
    assert epochs[1]["module_conflict_rate"] == [0.2, 0.4]
    assert parquet.read_table(finished_study / "clips.parquet").num_rows == 120


def test_finished_trials_are_known_without_their_folders(finished_study, small_study):
    before = (finished_study / "results.parquet").read_bytes()
    shutil.rmtree(finished_study / "cells")
    shutil.rmtree(finished_study / "evaluation_sets")
    tables = StudyTables(finished_study)
    assert all(tables.has(trial, small_study.evaluation_sets) for trial in small_study.trials)
    tables.update(small_study)
    assert (finished_study / "results.parquet").read_bytes() == before


def test_a_trial_is_unfinished_until_it_is_scored_on_every_set(tmp_path, small_study, write_trial, clips_folder):
    trial = small_study.trials[0]
    write_trial(small_study, trial, sets=small_study.evaluation_sets[:1])
    StudyTables(tmp_path).update(small_study)
    tables = StudyTables(tmp_path)
    assert tables.has(trial, small_study.evaluation_sets[:1])
    assert not tables.has(trial, small_study.evaluation_sets)


@pytest.mark.parametrize("changed", [{"split": "train"}, {"corpus": "other"}, {"subset": "all"}])
def test_a_set_that_is_redefined_is_not_scored_yet(finished_study, small_study, changed):
    tables = StudyTables(finished_study)
    other = EvaluationSet(**{"name": "test", "corpus": "demo", **changed})
    assert not tables.has(small_study.trials[0], [other])


def rows(folder, name="results.parquet"):
    return parquet.read_table(folder / name).to_pylist()


def study(**changes):
    content = {
        "evaluate": {"test": {"corpus": "demo"}, "dev": {"corpus": "demo", "split": "validation"}},
        "cells": [{"method": "clean", "batch_size": 16, "epochs": 2, "seed": 0}],
    }
    return Study.from_mapping({**content, **changes})


def snapshot(folder):
    return {name: (folder / name).read_bytes() for name in SCHEMAS}


def test_rows_of_another_study_stay(finished_study):
    before = {name: rows(finished_study, name) for name in SCHEMAS}
    shutil.rmtree(finished_study / "cells")
    other = study(evaluate={"test": {"corpus": "demo"}})  # one trial of twelve, one set of two
    tables = StudyTables(finished_study)
    tables.update(other)
    tables.refuse_mixing(other)
    for name, earlier in before.items():
        later = rows(finished_study, name)
        assert len(later) == len(earlier)
        assert all(row in later for row in earlier)
    assert rows(finished_study)[0]["method"] == "clean"  # its own rows come first


def test_a_set_that_another_study_scored_stays(finished_study, write_trial, clips_folder):
    other = study(evaluate={"more": {"corpus": "demo", "split": "train"}})
    shutil.copy(clips_folder / "test.parquet", clips_folder / "more.parquet")
    table = parquet.read_table(clips_folder / "more.parquet")
    table = table.set_column(0, "evaluation_set", [["more"] * table.num_rows])
    parquet.write_table(table, clips_folder / "more.parquet")
    write_trial(other, other.trials[0])
    tables = StudyTables(finished_study)
    tables.update(other)
    result = [row["evaluation_set"] for row in tables.results[other.trials[0].id]]
    assert result == ["more", "test", "dev"]
    StudyResults(StudyTables(finished_study))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": {"learning_rate": 1}}, "a trial with the same settings .*but other options.*--output_dir"),
        ({"evaluate": {"test": {"corpus": "other"}}}, "a different evaluation set with the name test .*--output_dir"),
        ({"evaluate": {"dev": {"corpus": "demo", "split": "test"}}}, "a different evaluation set with the name dev"),
    ],
)
def test_ambiguous_results_are_refused(finished_study, changes, message):
    with pytest.raises(StudyError, match=message):
        StudyTables(finished_study).refuse_mixing(study(**changes))


def test_tables_are_rebuilt_from_the_trials_folders(finished_study, small_study):
    before = snapshot(finished_study)
    (finished_study / "results.parquet").unlink()
    (finished_study / "epochs.parquet").write_bytes(b"PAR1 and no more")
    (finished_study / "clips.parquet").write_bytes(before["clips.parquet"][:100])
    (finished_study / "epochs.parquet.damaged").write_text("of last time")
    with pytest.raises(StudyError, match=r"epochs\.parquet is damaged, or not a table of a study .*--rebuild_tables"):
        StudyTables(finished_study)
    aside, unknown = rebuild_tables(finished_study)
    assert [path.name for path in aside] == ["clips.parquet.damaged", "epochs.parquet.damaged1"]
    assert unknown == []
    StudyTables(finished_study).update(small_study)  # in the order of the study
    assert snapshot(finished_study) == before
    folder = finished_study / "cells" / small_study.trials[0].id
    (folder / "settings.json").unlink()  # as in earlier versions
    (finished_study / "results.parquet").unlink()
    assert rebuild_tables(finished_study) == ([], [folder])
    assert len(rows(finished_study)) == 22
    StudyTables(finished_study).update(small_study)  # writes the settings, so that the next rebuild knows them
    (finished_study / "results.parquet").unlink()
    assert rebuild_tables(finished_study) == ([], [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.drop_columns(["scores"]), "it has no column 'scores'"),
        (lambda table: table.append_column("mine", [[1] * table.num_rows]), "it has an unknown column 'mine'"),
        (lambda table: table.set_column(7, "seed", [["x"] * table.num_rows]), "x"),
        (lambda table: table.set_column(0, "cell", [[None] * table.num_rows]), "it has rows without cell"),
    ],
)
def test_tables_with_other_columns_are_refused(finished_study, change, reason):
    path = finished_study / "results.parquet"
    parquet.write_table(change(parquet.read_table(path)), path)
    with pytest.raises(StudyError, match=rf"results\.parquet is damaged, or not a table of a study \(.*{reason}"):
        StudyTables(finished_study)


def test_scores_and_clips_of_different_studies_are_not_reported(finished_study):
    path = finished_study / "clips.parquet"
    parquet.write_table(parquet.read_table(path).slice(1), path)
    with pytest.raises(StudyError, match=r"has 60 scores of the trial .* on test, but .* 59 clips"):
        StudyResults(StudyTables(finished_study))


def test_trials_with_the_same_settings_are_not_reported_as_one(finished_study):
    path = finished_study / "results.parquet"
    table = parquet.read_table(path)
    copy = table.slice(0, 2).set_column(0, "cell", [["by_hand"] * 2])
    parquet.write_table(pa.concat_tables([table, copy]), path)
    with pytest.raises(StudyError, match=r"the trials .* and by_hand .* have the same settings"):
        StudyResults(StudyTables(finished_study))


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("cell.json", lambda text: text[:100], "truncated or not JSON"),
        ("cell.json", lambda text: "[]", "not an object"),
        ("cell.json", lambda text: "[" * 100_000, "not JSON"),
        ("cell.json", lambda text: text.replace('"run"', '"ran"'), "run is missing"),
        ("cell.json", lambda text: text.replace('"versions"', '"version"'), "KeyError: 'versions'"),
        ("cell.json", lambda text: text.replace('"n_updates": 20', '"n_updates": "many"'), "ArrowInvalid"),
        ("cell.json", lambda text: text.replace('"n_updates": 20', '"n_updates": ' + "9" * 30), "Overflow|Arrow"),
        ("settings.json", lambda text: text.replace('"seed"', '"sed"'), "seed is missing"),
        ("scores/test.txt", lambda text: text.partition("\n")[2], "it has scores for 59 of 60 clips"),
        ("scores/test.txt", lambda text: text.replace(" ", ",", 1), "not enough values"),
    ],
)
def test_files_of_a_trial_that_were_changed_are_named(finished_study, small_study, name, change, reason):
    folder = finished_study / "cells" / small_study.trials[0].id
    text = (folder / name).read_text()
    (folder / name).write_text(change(text))
    before = snapshot(finished_study)
    with pytest.raises(
        StudyError, match=rf"{name.replace('.', '[.]')} was changed after the trial wrote it: .*{reason}.*Delete it"
    ):
        StudyTables(finished_study).update(None if name == "settings.json" else small_study)
    assert snapshot(finished_study) == before


def test_clips_that_changed_are_refused(finished_study, small_study):
    path = finished_study / "evaluation_sets" / "test.parquet"
    parquet.write_table(parquet.read_table(path).slice(1), path)
    with pytest.raises(StudyError, match=r"test\.parquet and .*clips\.parquet have different clips"):
        StudyTables(finished_study).update(small_study)


def test_clips_come_back_from_the_tables(finished_study, small_study):
    shutil.rmtree(finished_study / "evaluation_sets")
    StudyTables(finished_study).write_clips(small_study)
    clips = Dataset.from_dict({"utterance_id": ["other"], "label": [1]})
    with pytest.raises(StudyError, match=r"the evaluation set test has 1 clips, .* differ from the 60 .*new folder"):
        require_same_clips(clips, small_study.evaluation_sets[0], finished_study / "evaluation_sets")


def test_a_full_disk_leaves_the_tables_that_were_there(finished_study, small_study, monkeypatch):
    before = snapshot(finished_study)

    def write(table, path, **options):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")  # pyarrow's error has no path

    monkeypatch.setattr(parquet, "write_table", write)
    with pytest.raises(OSError, match=r"No space left on device: '.*clips\.parquet'"):
        StudyTables(finished_study).update(small_study)
    assert snapshot(finished_study) == before
    assert not list(finished_study.glob("*.draft"))

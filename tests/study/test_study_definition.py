import pytest
import yaml

from hf_gradalign.study import Study, StudyError
from hf_gradalign.study.definition import EvaluationSet, expand_variables

DEMO = {"test": {"corpus": "demo"}}


def study(**content):
    return Study.from_mapping({"evaluate": DEMO, "cells": [{"method": "pcgrad"}], **content})


def test_a_block_stands_for_all_combinations():
    trials = study(cells=[{"method": ["dual_path", "pcgrad"], "batch_size": [5, 16], "seed": "3..5"}]).trials
    result = [(c.settings["method"], c.settings["batch_size"], c.settings["seed"]) for c in trials]
    assert result == [(m, b, s) for m in ("dual_path", "pcgrad") for b in (5, 16) for s in (3, 4, 5)]
    assert len({trial.id for trial in trials}) == 12


def test_a_trial_that_is_listed_twice_runs_once():
    trials = study(cells=[{"method": "pcgrad", "seed": [0, 1]}, {"method": ["pcgrad", "none"], "seed": 1}]).trials
    assert [(c.settings["method"], c.settings["seed"]) for c in trials] == [("pcgrad", 0), ("pcgrad", 1), ("none", 1)]


def test_numbers_that_are_equal_make_one_trial():
    assert len(study(cells=[{"method": "pcgrad", "epochs": [2, 2.0]}]).trials) == 1


def test_tokens_are_no_part_of_a_trial():
    with_token = study(options={"hub_token": "secret"})
    assert with_token.tokens == {"hub_token": "secret"}
    assert with_token.trials == study().trials
    assert "secret" not in repr(with_token)


def test_keys_of_several_kinds_have_a_name_too():
    assert study(options={"label_map": {0: "spoof", "fake": "spoof"}}).trials[0].id


def test_options_are_those_of_a_run():
    block = {"method": "gradvac", "augmentation": "codec", "model": "a/b", "head": "aasist", "weight_decay": 0.1}
    (trial,) = study(options={"learning_rate": 1e-4}, cells=[block]).trials
    assert trial.options == {
        "learning_rate": 1e-4,
        "align_gradients": "gradvac",
        "augmentation": "codec",
        "model_name_or_path": "a/b",
        "head": "aasist",
        "per_device_train_batch_size": 16,
        "num_train_epochs": 10,
        "seed": 42,
        "weight_decay": 0.1,
    }
    assert trial.n_views == 2


def test_clean_training_is_the_same_run_for_every_augmentation():
    trials = study(cells=[{"method": "clean", "augmentation": ["rawboost", "codec"]}]).trials
    assert [(c.options["views"], c.settings["augmentation"], c.n_views) for c in trials] == [("clean", "none", 1)]


def test_augmented_and_dual_path_training():
    augmented, dual = study(cells=[{"method": ["augmented", "dual_path"], "augmentation": "rawboost5"}]).trials
    assert augmented.options["views"] == "augmented=rawboost5"
    assert augmented.n_views == 1
    assert dual.options["align_gradients"] == "none"
    assert dual.options["augmentation"] == "rawboost5"


def test_methods_that_the_study_defines():
    own = {"paper_gradvac": {"align_gradients": "gradvac", "alignment_options": {"update_on_conflict": True}}}
    (trial,) = study(methods=own, cells=[{"method": "paper_gradvac", "augmentation": "codec"}]).trials
    assert trial.options["alignment_options"] == {"update_on_conflict": True}
    assert trial.options["augmentation"] == "codec"


def test_other_options_are_another_trial():
    first, second = (study(options={"learning_rate": rate}).trials[0] for rate in (1e-3, 1e-4))
    assert first.settings == second.settings
    assert first.id != second.id


def test_evaluation_sets():
    sets = study(evaluate={"a": {"corpus": "demo", "split": "validation"}, "b": None}).evaluation_sets
    assert sets == [EvaluationSet("a", "demo", "validation"), EvaluationSet("b")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"cell": []}, "unknown key 'cell'; did you mean cells"),
        ({"cells": []}, "write a list of mappings"),
        ({"cells": [{"seed": 1}]}, "entry 1 has no method"),
        ({"cells": [{"method": [["a"]]}]}, "method takes a value, a list of values or a range"),
        ({"cells": [{"method": []}]}, "method has no value"),
        ({"cells": [{"method": "pcgrad", "align_gradients": "none"}]}, "align_gradients is not an axis. Vary method"),
        ({"options": {"seed": 1}}, "seed is set by the axis seed. Set it in cells"),
        ({"options": {"output_dir": "x"}}, "output_dir is set by the study itself"),
        ({"methods": {"x": {"head": "aasist"}}}, "methods: x: head is set by the axis head"),
        ({"evaluate": {}}, "name at least one set"),
        ({"evaluate": {"a": {"corpora": "demo"}}}, "unknown key 'corpora'; did you mean corpus"),
        ({"evaluate": {"a/b": {}}}, "not a valid name for a file"),
        ({"name": "a/b"}, "not a valid name for a folder: use up to 100"),
        ({"options": ["x"]}, "options must be a mapping"),
        ({"options": {1: "x"}}, "options: the key 1 is not text"),
        ({"name": "a" * 300}, "use up to 100"),
        ({"evaluate": {"a" * 300: {}}}, "use up to 100"),
        ({"evaluate": {"a": {"subset": ["x"]}}}, "evaluate: a: subset takes text"),
        ({"evaluate": {1: {}, "1": {}}}, "two sets have the same name"),
        (
            {"cells": [{"method": "pcgrad", "seed": "0..300000000"}]},
            "300,000,001 trials are more",
        ),
        ({"cells": [{"method": "pcgrad", "seed": "0..999", "rms_level": "0..999"}]}, "1,000,000 trials are more than"),
        ({"cells": [{"method": "pcgrad", "seed": "0.." + "9" * 20_000}]}, "seed takes a whole number from 0 to"),
        ({"cells": [{"method": "pcgrad", "seed": "4..0"}]}, "the range 4..0 goes down"),
        ({"cells": [{"method": "pcgrad", "seed": -1}]}, "seed takes a whole number from 0 to 4294967295, not -1"),
        ({"cells": [{"method": "pcgrad", "seed": "${SEED}"}]}, "seed takes a whole number"),
        ({"cells": [{"method": "pcgrad", "seed": True}]}, "seed takes a whole number"),
        ({"cells": [{"method": "pcgrad", "batch_size": "16"}]}, "batch_size takes a whole number"),
        ({"cells": [{"method": "pcgrad", "epochs": "1e1"}]}, "epochs takes a number from 0"),
        ({"cells": [{"method": "pcgrad", "epochs": float("nan")}]}, "epochs takes a number from 0"),
        ({"cells": [{"method": "pcgrad", "hub_token": ["a", "b"]}]}, "hub_token is not an axis"),
        ({"methods": {"x": {"hub_token": "a"}}}, "Set hub_token in options"),
        ({"options": {"corpus": "https://me:hf_" + "Ab1" * 11 + "@hub/x"}}, "looks like an access token.*HF_TOKEN"),
        ({"evaluate": {"a": {"corpus": "hf_" + "Ab1" * 11}}}, "looks like an access token"),
    ],
)
def test_mistakes_are_errors(content, message):
    with pytest.raises(StudyError, match=message):
        study(**content)


def test_a_file_names_the_study(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"evaluate": DEMO, "cells": [{"method": "pcgrad"}]}))
    assert Study.read(path).name == "mine"
    path.write_text("cells: [")
    with pytest.raises(ValueError, match=r"mine\.yaml: not a readable YAML or JSON file"):
        Study.read(path)
    with pytest.raises(FileNotFoundError, match="no study file"):
        Study.read(tmp_path / "other.yaml")


def test_variables_of_the_environment(monkeypatch):
    monkeypatch.setenv("PLACE", "/data")
    assert expand_variables({"a": ["${PLACE}/x", 1]}) == {"a": ["/data/x", 1]}
    with pytest.raises(StudyError, match="set the environment variable NOT_THERE first"):
        expand_variables("${NOT_THERE}")
    # The name of a trial does not depend on where its data is.
    there = study(options={"corpus": "${PLACE}"}).trials[0].id
    monkeypatch.setenv("PLACE", "/elsewhere")
    assert study(options={"corpus": "${PLACE}"}).trials[0].id == there

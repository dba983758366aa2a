import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conflict_rows import make_rows, write_rows
from huggingface_hub import ModelCard
from test_results import make_results

from hf_gradalign.experiment import (
    AudioSpoofTrainingArguments,
    DataArguments,
    ModelArguments,
    RunArguments,
    write_run_card,
)
from hf_gradalign.models import load_audio_classifier


def write(tmp_path, model_args=None, training=None, options=(), conflict_record="jsonl", more=(), **data):
    model, extractor = load_audio_classifier()
    more = dict(more)
    model_args, data_args = model_args or ModelArguments(), DataArguments(**data)
    args = AudioSpoofTrainingArguments(
        output_dir=str(tmp_path / "my-run"), align_gradients="cagrad", **(training or {})
    )
    args.conflict_record = conflict_record
    given = {"dataset_name": str(Path(tmp_path, "private", "corpus")), **dict(options)}
    run = RunArguments(model_args, data_args, args, given)
    run.settle_defaults()
    preparation = SimpleNamespace(
        model=model, feature_extractor=extractor, train_dataset=range(7), **{"eval_sources": {}, **more}
    )
    metrics = {"eval_eer": 0.03, "eval_eer_threshold": 0.5, "test_eer": 0.2, "test_eer_threshold": 0.1}
    results = make_results(metrics=metrics, averaged_checkpoints=2)
    return write_run_card(results, preparation, run)


def test_demo_run(tmp_path):
    path = write(tmp_path)
    card = ModelCard.load(path)
    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "audio-classification"
    assert [(result.dataset_split, result.metric_value) for result in card.data.eval_results] == [
        ("validation", 0.03),
        ("test", 0.2),
    ]
    assert "CAGrad" in card.text
    assert "| checkpoints averaged | 2 |" in card.text
    assert "This is a demonstration" in card.text
    assert "--dataset_name corpus" in card.text
    assert str(tmp_path) not in card.text


def test_views_and_their_alignment(tmp_path):
    views = f"clean,rawboost2,line={tmp_path}/private/line.yaml"
    training = {
        "view_weights": {"line": 0.5},
        "alignment_scope": "module",
        "alignment_modules": ["classifier", "projector"],
        "alignment_parameters": ["weight$"],
    }
    text = write(tmp_path, training=training, views=views, options={"views": views}).read_text()
    assert "three times per step, clean (weight 1), rawboost2 (weight 1) and line (line.yaml, weight 0.5), in" in text
    assert "| alignment scope | module |\n| modules aligned separately | classifier, projector |\n" in text
    assert "| parameters aligned | weight$ |" in text
    assert "--views clean,rawboost2,line.yaml" in text
    assert str(tmp_path) not in text


def test_ordinary_alignment_is_not_explained(tmp_path):
    text = write(tmp_path).read_text()
    assert "seen twice per step, clean and augmented (rawboost), in two forward and backward passes, and the" in text
    for absent in ("alignment scope", "aligned |", "(weight"):
        assert absent not in text.split("## How it was trained")[1]


def test_fine_tuned_on_the_hubs_data(tmp_path):
    model_args = ModelArguments(model_name_or_path="facebook/wav2vec2-xls-r-300m")
    card = ModelCard.load(write(tmp_path, model_args, dataset_name="someone/corpus"))
    assert card.data.base_model == "facebook/wav2vec2-xls-r-300m"
    assert card.data.datasets == ["someone/corpus"]
    assert card.data.license is None
    assert "This is a demonstration" not in card.text


def test_shows_the_conflict_record(tmp_path):
    write_rows(tmp_path / "my-run", make_rows(modules=["encoder.layers.0", "classifier"]))
    text = ModelCard.load(write(tmp_path)).text
    lines = text.splitlines()
    shown = [line for line in lines if line.startswith("![")]
    assert [line.partition("](")[2] for line in shown] == [
        "figures/conflicts.png)",
        "figures/conflicts_by_module.png)",
    ]
    for line in shown:
        assert (lines[lines.index(line) - 1], lines[lines.index(line) + 1]) == ("", "")
        assert (tmp_path / "my-run" / line.partition("](")[2].rstrip(")")).is_file()
    assert "every update are in [conflicts.jsonl](conflicts.jsonl)." in text


@pytest.mark.parametrize("reason", ["no matplotlib", "no record", "not asked for"])
def test_without_figures_the_card_has_the_table(tmp_path, monkeypatch, reason):
    if reason != "no record":
        write_rows(tmp_path / "my-run", make_rows())
    if reason == "no matplotlib":
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = ModelCard.load(write(tmp_path, conflict_record="none" if reason == "not asked for" else "jsonl")).text
    assert "![" not in text
    assert "| 2 | 25.00 % |" in text
    assert ("(conflicts.jsonl)" in text) == (reason == "no matplotlib")


def test_mix_and_its_test_sets(tmp_path):
    corpora = [f"asvspoof2019_la:{tmp_path}/private/LA", "someone/corpus"]
    held_out = {"validation": corpora[0], "test": "arena:DFADD"}
    options = {"corpus": corpora, "test_corpus": f"in_the_wild:{tmp_path}/private"}
    path = write(
        tmp_path,
        corpus=corpora,
        corpus_weights=[0.5, 2],
        balance_classes=True,
        options=options,
        more={"eval_sources": held_out},
    )
    card = ModelCard.load(path)
    assert "ASVspoof 2019 LA and someone/corpus" in card.text
    assert "| corpus weights | 0.5, 2 |" in card.text
    assert "| classes balanced | yes |" in card.text
    assert [(result.dataset_name, result.dataset_type) for result in card.data.eval_results] == [
        ("ASVspoof 2019 LA", "asvspoof-2019-la"),
        ("SpeechAntiSpoofingBenchmarks/DFADD", "SpeechAntiSpoofingBenchmarks/DFADD"),
    ]
    assert "| test (SpeechAntiSpoofingBenchmarks/DFADD) |" in card.text
    assert "--corpus asvspoof2019_la:LA someone/corpus --test_corpus in_the_wild:private" in card.text
    assert str(tmp_path) not in card.text


def test_the_corpus_that_was_trained_on_is_named_once(tmp_path):
    text = write(tmp_path, corpus=["someone/corpus"], more={"eval_sources": {"test": "someone/corpus"}}).read_text()
    assert "| test |" in text
    assert "streamed" not in text
    assert "| training clips | streamed |" in write(tmp_path, corpus=["someone/corpus"], streaming=True).read_text()

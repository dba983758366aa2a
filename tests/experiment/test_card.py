from pathlib import Path
from types import SimpleNamespace

from huggingface_hub import ModelCard
from test_summary import make_results

from hf_gradalign.experiment import AudioSpoofTrainingArguments, DataArguments, ModelArguments, write_run_card
from hf_gradalign.experiment.preparation import settle_defaults
from hf_gradalign.models import load_audio_classifier


def write(tmp_path, model_args=None, **data):
    model, extractor = load_audio_classifier()
    model_args, data_args = model_args or ModelArguments(), DataArguments(**data)
    args = AudioSpoofTrainingArguments(output_dir=str(tmp_path / "my-run"), align_gradients="cagrad")
    settle_defaults(model_args, data_args, args)
    preparation = SimpleNamespace(model=model, feature_extractor=extractor, train_dataset=range(7))
    metrics = {"eval_eer": 0.03, "eval_eer_threshold": 0.5, "test_eer": 0.2, "test_eer_threshold": 0.1}
    results = make_results(metrics=metrics, averaged_checkpoints=2)
    command = ["python", "run.py", "--dataset_name", str(Path(tmp_path, "private", "corpus"))]
    return write_run_card(results, preparation, model_args, data_args, args, command)


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


def test_fine_tuned_on_the_hubs_data(tmp_path):
    model_args = ModelArguments(model_name_or_path="facebook/wav2vec2-xls-r-300m")
    card = ModelCard.load(write(tmp_path, model_args, dataset_name="someone/corpus"))
    assert card.data.base_model == "facebook/wav2vec2-xls-r-300m"
    assert card.data.datasets == ["someone/corpus"]
    assert card.data.license is None
    assert "This is a demonstration" not in card.text

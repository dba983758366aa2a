"""The card's metadata can be read by the Hub, and its text states what the run knew."""

import math
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_gradalign.hub import ModelCardFacts, write_model_card


@pytest.fixture
def facts():
    return ModelCardFacts(
        model_name="detector",
        dataset_name="Some | corpus",
        repo_id="tester/detector",
        base_model="facebook/wav2vec2-base",
        dataset_id="someone/corpus",
        license="apache-2.0",
        languages=["en", "it"],
        alignment_method="gradvac",
        alignment_options={"beta": 0.5, "unset": None},
        views={"clean": None, "augmented": "RawBoost(algorithm=4)"},
        hyperparameters={"learning_rate": 1e-6, "warm-up": None, "seed": 1234},
        results={
            "validation": {"eer": 0.03125, "threshold": -0.25, "by_system": {"A01": 0.0, "A|7": 0.0625}},
            "test": {"eer": 0.205},
        },
        conflict_rate=0.2134,
        conflict_rate_by_epoch=[0.0, 0.4268],
        conflict_record="conflicts.parquet",
        figures={"figures/a.png": "Histogram of cosines", "figures/b.png": "Heat map"},
        window_seconds=4.175,
        n_parameters=94_600_000,
        versions={"torch": "2.13.0"},
        command="python scripts/run_audio_spoof.py --align_gradients gradvac",
    )


@pytest.fixture
def bare_facts():
    return ModelCardFacts(model_name="bare", dataset_name="Corpus")


def test_metadata_comes_back(tmp_path, facts):
    path = write_model_card(tmp_path / "new folder", facts)
    assert path == tmp_path / "new folder" / "README.md"
    data = ModelCard.load(path).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "audio-classification"
    assert data.base_model == "facebook/wav2vec2-base"
    assert data.datasets == ["someone/corpus"]
    assert data.license == "apache-2.0"
    assert data.language == ["en", "it"]
    assert data.metrics == ["eer"]
    assert {"hf_gradalign", "audio-deepfake-detection", "anti-spoofing", "gradient-alignment"} <= set(data.tags)
    assert data.model_name == "detector"
    results = [(r.dataset_type, r.dataset_split, r.metric_type, r.metric_value) for r in data.eval_results]
    assert results == [("someone/corpus", "validation", "eer", 0.03125), ("someone/corpus", "test", "eer", 0.205)]
    assert all("fraction" in result.metric_name for result in data.eval_results)
    assert all(result.task_type == "audio-classification" for result in data.eval_results)


def test_card_is_plain_yaml_and_survives_saving_again(tmp_path, facts):
    path = write_model_card(tmp_path, facts)
    metadata = yaml.safe_load(path.read_text().split("---\n")[1])
    assert metadata["model-index"][0]["results"][1]["metrics"][0]["value"] == 0.205
    card = ModelCard.load(path)
    card.save(tmp_path / "again.md")
    assert (tmp_path / "again.md").read_text() == path.read_text()


@pytest.mark.parametrize(
    "line",
    [
        "# detector",
        "[facebook/wav2vec2-base](https://huggingface.co/facebook/wav2vec2-base), fine-tuned on "
        "[Some | corpus](https://huggingface.co/datasets/someone/corpus)",
        "- Input: mono speech at 16000 Hz, a window of 4.175 s",
        "- Output: one logit per class (0 = spoof, 1 = bonafide);",
        "- Size: 94.60 million parameters",
        "- License: apache-2.0",
        'model="tester/detector"',
        "The score at the equal error rate was -0.250 on validation.",
        "| validation | all | 3.12 % |\n| validation | A01 | 0.00 % |\n| validation | A\\|7 | 6.25 % |\n",
        "| test | all | 20.50 % |",
        "clean and augmented (RawBoost(algorithm=4))",
        "aligned with GradVac (beta=0.5) before",
        "in conflict (negative cosine) in 21.34 % of the updates",
        "| 1 | 0.00 % |\n| 2 | 42.68 % |\n\n![Histogram of cosines](figures/a.png)\n\n![Heat map](figures/b.png)\n\n",
        "every update are in [conflicts.parquet](conflicts.parquet).\n\n| setting |",
        "| learning_rate | 1e-06 |\n| seed | 1234 |\n",
        "```\npython scripts/run_audio_spoof.py --align_gradients gradvac\n```",
        "| torch | 2.13.0 |",
        "eprint        = {2509.20682}",
        "@inproceedings{tak2022rawboost",
    ],
)
def test_text_says(tmp_path, facts, line):
    assert line in write_model_card(tmp_path, facts).read_text()


def test_what_is_not_known_is_not_mentioned(tmp_path, bare_facts):
    path = write_model_card(tmp_path, bare_facts)
    data, text = ModelCard.load(path).data, path.read_text()
    assert set(data.to_dict()) == {"library_name", "pipeline_tag", "tags", "metrics"}
    assert "trained from scratch on Corpus with" in text
    assert "No results were measured." in text
    assert "without an augmented view" in text
    for absent in ["None", "nan", "{}", "()", "[]", "![", "%", "|", "{{"]:
        assert absent not in text
    for absent in ["RawBoost", "conflict", "License", "demonstration"]:
        assert absent not in text
    assert "\n\n\n" not in text


def test_results_without_a_rate_are_left_out(tmp_path, bare_facts):
    bare_facts.results = {"validation": {}, "test": {"eer": 0.25}}
    text = write_model_card(tmp_path, bare_facts).read_text()
    assert "| test | all | 25.00 % |" in text
    assert "validation" not in text


def test_demonstration_corpus_is_called_one(tmp_path, bare_facts, facts):
    bare_facts.is_demo_corpus = True
    assert "**This is a demonstration.**" in write_model_card(tmp_path, bare_facts).read_text()
    assert "**This is a demonstration.**" not in write_model_card(tmp_path, facts).read_text()


def test_two_views_without_alignment(tmp_path, bare_facts):
    bare_facts.views = {"clean": None, "augmented": "AddGaussianNoise"}
    text = write_model_card(tmp_path, bare_facts).read_text()
    assert "clean and augmented (AddGaussianNoise)" in text
    assert "followed the mean of the two gradients, without alignment" in text
    assert "weight" not in text.split("## How it was trained")[1].split("##")[0]
    assert "tak2022rawboost" not in text


def training_of(folder, facts, **changes):
    for name, value in changes.items():
        setattr(facts, name, value)
    return write_model_card(folder, facts).read_text().split("## How it was trained")[1].split("##")[0]


def test_three_views(tmp_path, facts):
    views = {"clean": None, "rawboost": "rawboost", "line": "codec"}
    text = training_of(tmp_path, facts, views=views, view_weights={"line": 0.5})
    assert (
        "seen three times per step, clean (weight 1), rawboost (weight 1) and line (codec, weight 0.5), in three "
        "forward and backward passes, and the three gradients were aligned with GradVac (beta=0.5) before the update."
    ) in text
    assert "The gradients of at least two views were in conflict" in text
    text = training_of(tmp_path, facts, alignment_method="none")
    assert "the update followed the weighted mean of the three gradients, without alignment." in text
    text = training_of(tmp_path, facts, view_weights={"clean": 2, "rawboost": 2, "line": 2})
    assert "clean, rawboost and line (codec), in three" in text
    assert "followed the mean of the three" in text


def test_one_view(tmp_path, facts, bare_facts):
    facts.conflict_rate, facts.conflict_rate_by_epoch = None, []
    text = training_of(tmp_path, facts, views={"codec": "codec"})
    assert "seen once per step, in the view codec alone, so there were no gradients to align." in text
    assert "GradVac" not in text
    assert "tak2022rawboost" not in (tmp_path / "README.md").read_text()
    assert "without an augmented view" in training_of(tmp_path, bare_facts, views={"clean": None})


def test_local_names_are_not_given_out_as_hub_ids(tmp_path, facts):
    local = tmp_path / "pretrained"
    local.mkdir()
    facts.base_model = str(local)
    facts.dataset_id = str(tmp_path / "data" / "train.parquet")
    path = write_model_card(tmp_path, facts)
    data = ModelCard.load(path).data
    assert data.base_model is None
    assert data.datasets is None
    assert data.eval_results[0].dataset_type == "some-corpus"
    assert "It is pretrained, fine-tuned on Some | corpus with" in path.read_text()
    assert str(tmp_path) not in path.read_text()


def test_a_relative_folder_is_not_taken_for_a_hub_id(tmp_path, facts, monkeypatch):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    facts.base_model = "runs/first"
    path = write_model_card("card", facts)
    assert ModelCard.load(path).data.base_model is None
    assert "It is first, fine-tuned on" in path.read_text()


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("imtlg", "aligned with IMTL-G before"),
        ("crmogm(pcgrad)", "aligned with PCGrad, its weights smoothed by CR-MOGM before"),
        ("crmogm(none)", "aligned with the mean, its weights smoothed by CR-MOGM before"),
    ],
)
def test_methods_have_their_names(tmp_path, facts, method, text):
    facts.alignment_method, facts.alignment_options = method, {}
    assert text in write_model_card(tmp_path, facts).read_text()


def test_an_older_card_is_replaced(tmp_path, facts):
    (tmp_path / "README.md").write_text("old")
    assert "old" not in write_model_card(tmp_path, facts).read_text().split()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("results", {"test": {"eer": 20.5}}, "The equal error rate on test is 20.5: use a fraction in"),
        ("results", {"test": {"eer": 0.2, "by_system": {"A01": -0.1}}}, "The equal error rate of A01 on test is -0.1"),
        ("results", {"test": {"eer": math.nan}}, "The equal error rate on test is nan"),
        ("conflict_rate", 21.0, "The conflict rate is 21.0: use a fraction in"),
        ("conflict_rate_by_epoch", [0.1, 35], "The conflict rate of epoch 2 is 35: use a fraction in"),
    ],
)
def test_rates_in_per_cent_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        ModelCardFacts(model_name="m", dataset_name="d", **{field: value})


HOSTILE = (
    "x|y](javascript:a)<img src=q onerror=1>\n---\nlicense: mit\n# h **b** `c` {{ 7*7 }} {% raw %} "
    '![i](http://e.org/i) "'
)


def test_what_others_wrote_is_text(tmp_path):
    facts = ModelCardFacts(
        model_name=HOSTILE,
        dataset_name=HOSTILE,
        base_model=HOSTILE,
        license="other",
        views={"clean": None, "loud": HOSTILE},
        alignment_method="pcgrad",
        alignment_options={"beta": HOSTILE},
        hyperparameters={HOSTILE: HOSTILE},
        results={HOSTILE: {"eer": 0.1, "threshold": 0.0, "by_system": {HOSTILE: 0.2}, "dataset_name": HOSTILE}},
        figures={"figures/a b).png": HOSTILE},
        id2label={0: "spoof", 1: HOSTILE},
        command=f"python x.py '{HOSTILE}' ```",
    )
    path = write_model_card(tmp_path, facts)
    card = ModelCard.load(path)
    assert card.data.license == "other"
    assert card.data.model_name == HOSTILE  # as a value of YAML
    text = card.text
    in_code = text[text.index("````") : text.rindex("````")]
    code = text[text.index("```python") : text.index("```\n\nIf transformers")]
    prose = text.replace(in_code, "").replace(code, "")
    assert not re.search(r"(?<!\\)<img|(?<!\\)\]\(javascript|(?<!\\)\*\*b|(?<!\\)`c|(?<!\\)!\[i\]\(", prose)
    assert "49" not in prose
    assert "\nlicense: mit" not in prose
    rows = [line for line in prose.splitlines() if line.startswith("|") and "onerror" in line]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3, 4}
    compile(code.removeprefix("```python"), "example", "exec")


def test_paths_of_this_machine_stay_here(tmp_path):
    (tmp_path / "my model").mkdir()
    facts = ModelCardFacts(
        model_name="detector",
        dataset_name=f"{tmp_path}/corpus",
        base_model=f"{tmp_path}/my model",
        hyperparameters={"noise": f'{{"musan": "{tmp_path}/musan"}}'},
        command=f"python x.py --corpus asvspoof2019_la:{tmp_path}/LA --noise '{tmp_path}/my noise' --a={tmp_path}/b",
    )
    text = write_model_card(tmp_path, facts).read_text()
    assert str(tmp_path) not in text
    assert tmp_path.name not in text
    assert "--corpus asvspoof2019_la:LA --noise 'my noise' --a=b" in text
    assert "https://huggingface.co/docs/transformers" in text

"""Results are added to a card's metadata, and the rest of the card does not change."""

import pytest
import yaml
from arena_world import CARD
from huggingface_hub import EvalResult, ModelCard

from hf_gradalign.hub.arena.results import add_results_to_card


def result(value=0.0625, dataset="o/set", metric="eer", name="rate", **more):
    return EvalResult(
        task_type="audio-classification",
        dataset_type=dataset,
        dataset_name="A set",
        dataset_split="test",
        metric_type=metric,
        metric_name=name,
        metric_value=value,
        **more,
    )


def metadata(folder):
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def join_words(folder):
    blocks = metadata(folder)["model-index"][0]["results"]
    return [
        (block["dataset"]["type"], metric["type"], metric["value"]) for block in blocks for metric in block["metrics"]
    ]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "README.md").write_text(CARD, encoding="utf-8")
    return tmp_path


def test_everything_else_stays(folder):
    assert add_results_to_card(folder, "new name", [result()]) == folder / "README.md"
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.split("\n---\n", 1)[1] == CARD.split("\n---\n", 1)[1]
    before, after = yaml.safe_load(CARD.split("---\n")[1]), metadata(folder)
    assert list(after) == list(before)
    old, new = before.pop("model-index"), after.pop("model-index")
    assert after == before
    assert new[0]["name"] == "older name"
    assert new[0]["results"][0] == old[0]["results"][0]
    assert join_words(folder) == [("someone/other", "eer", 0.25), ("o/set", "eer", 0.0625)]
    assert len(ModelCard.load(folder / "README.md").data.eval_results) == 2
    assert [path.name for path in folder.iterdir()] == ["README.md"]


def test_a_newer_result_takes_the_place_of_the_older_one(folder):
    first = [result(0.1, dataset_revision="1" * 40), result(0.9, metric="accuracy", dataset_revision="1" * 40)]
    add_results_to_card(folder, "m", first)
    add_results_to_card(folder, "m", [result(0.3, dataset="o/third")])
    add_results_to_card(folder, "m", [result(0.2, dataset_revision="2" * 40)])
    add_results_to_card(folder, "m", [result(0.5, name="another rate")])
    assert join_words(folder) == [
        ("someone/other", "eer", 0.25),
        ("o/set", "eer", 0.2),
        ("o/set", "accuracy", 0.9),
        ("o/third", "eer", 0.3),
        ("o/set", "eer", 0.5),
    ]
    again = (folder / "README.md").read_bytes()
    add_results_to_card(folder, "m", [result(0.5, name="another rate")])
    assert (folder / "README.md").read_bytes() == again


def test_of_several_models_the_named_one_gets_it(folder):
    (folder / "README.md").write_text("---\nmodel-index:\n- {name: a, results: []}\n- {name: b}\n---\ntext\n")
    add_results_to_card(folder, "b", [result()])
    assert [len(entry["results"]) for entry in metadata(folder)["model-index"]] == [0, 1]


@pytest.mark.parametrize("text", [None, "", "# No metadata\n\ntext\n", "---\nlicense: mit\n---\n"])
def test_cards_without_metadata_get_some(tmp_path, text):
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    add_results_to_card(tmp_path, "m", [result()])
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.model_name, card.data.eval_results[0].metric_value) == ("m", 0.0625)
    assert ("# m" if text is None else text.removeprefix("---\nlicense: mit\n---\n")) in card.content


def test_lines_end_as_they_did(folder):
    (folder / "README.md").write_bytes(CARD.replace("\n", "\r\n").encode())
    add_results_to_card(folder, "m", [result()])
    data = (folder / "README.md").read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n")


@pytest.mark.parametrize("block", ["a: [", "- a list", "model-index: text", "model-index: [{results: 5}]"])
def test_a_card_that_cannot_be_read_is_left_alone(tmp_path, block):
    (tmp_path / "README.md").write_text(f"---\n{block}\n---\ntext\n")
    with pytest.raises(ValueError, match=r"the metadata of .*README\.md cannot be read, and no result was added"):
        add_results_to_card(tmp_path, "m", [result()])
    assert (tmp_path / "README.md").read_text() == f"---\n{block}\n---\ntext\n"
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]

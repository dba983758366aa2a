import json
import shutil

import pytest
from toy import ToyViews, make_trainer
from transformers import Trainer

from hf_gradalign.training import GradientAlignmentTrainer
from hf_gradalign.training.checkpoint_manifest import MANIFEST_NAME
from hf_gradalign.training.checkpoint_soundness import shortcomings


def train(folder, trainer_class, dataset):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    make_trainer(folder, dataset, trainer_class=trainer_class, **options).train()
    return folder / "checkpoint-1"


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return train(tmp_path_factory.mktemp("ours"), GradientAlignmentTrainer, ToyViews())


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    return train(tmp_path_factory.mktemp("ordinary"), Trainer, [item["clean"] for item in ToyViews()])


@pytest.fixture(params=["ours", "ours without manifest", "ordinary"])
def checkpoint(request, tmp_path, ours, ordinary):
    copy = tmp_path / "checkpoint-1"
    shutil.copytree(ordinary if request.param == "ordinary" else ours, copy)
    assert (copy / MANIFEST_NAME).is_file() == request.param.startswith("ours")
    if request.param == "ours without manifest":
        (copy / MANIFEST_NAME).unlink()
    return copy


def files_of(checkpoint):
    return sorted(path for path in checkpoint.iterdir() if path.name != MANIFEST_NAME)


def test_a_whole_one(checkpoint):
    assert shortcomings(checkpoint) == []
    assert {path.name for path in files_of(checkpoint)} >= {
        "model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
        "training_args.bin",
    }


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_every_file_cut_off(checkpoint, kept):
    for path in files_of(checkpoint):
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
        [found] = shortcomings(checkpoint)
        assert found.startswith(path.name)
        path.write_bytes(content)


def test_every_file_deleted(checkpoint):
    # Without a manifest nobody knows of these that they were there.
    is_listed = (checkpoint / MANIFEST_NAME).is_file()
    unknown = set() if is_listed else {"training_args.bin", "alignment_state.json", "process_states.json"}
    for path in files_of(checkpoint):
        content = path.read_bytes()
        path.unlink()
        assert shortcomings(checkpoint) == ([] if path.name in unknown else [f"{path.name} is missing"])
        path.write_bytes(content)


def test_deleted_file_by_file(checkpoint):
    # As rmtree does; one that lacks all training state and nothing else is one saved with save_only_model.
    for path in files_of(checkpoint):
        path.unlink()
        if path.name not in ("alignment_state.json", "process_states.json") or (checkpoint / MANIFEST_NAME).is_file():
            assert shortcomings(checkpoint)
    shutil.rmtree(checkpoint)
    assert shortcomings(checkpoint) == ["the folder is missing"]


def test_weights_alone(tmp_path):
    make_trainer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1, save_only_model=True).train()
    checkpoint = tmp_path / "checkpoint-1"
    assert shortcomings(checkpoint) == []
    (checkpoint / MANIFEST_NAME).unlink()
    assert shortcomings(checkpoint) == []


def test_an_edited_configuration_is_no_damage(ours, tmp_path):
    checkpoint = shutil.copytree(ours, tmp_path / "checkpoint-1")
    path = checkpoint / "alignment_state.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert shortcomings(checkpoint) == []
    (checkpoint / "notes.txt").write_text("mine")
    assert shortcomings(checkpoint) == []


def test_a_damaged_manifest_is_none(ours, tmp_path):
    checkpoint = shutil.copytree(ours, tmp_path / "checkpoint-1")
    (checkpoint / "optimizer.pt").unlink()
    for content in ("[]", '{"files": {}}'):
        (checkpoint / MANIFEST_NAME).write_text(content)
        assert shortcomings(checkpoint) == ["optimizer.pt is missing"]


def test_shards_and_other_processes_random_states(ordinary, tmp_path):
    checkpoint = shutil.copytree(ordinary, tmp_path / "checkpoint-1")
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert shortcomings(checkpoint) == ["model-00002-of-00002.safetensors is missing"]
    shutil.copy(checkpoint / "model-00001-of-00002.safetensors", checkpoint / "model-00002-of-00002.safetensors")
    assert shortcomings(checkpoint) == []
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_1.pth")
    assert shortcomings(checkpoint) == ["rng_state.pth is missing"]
    shutil.copy(checkpoint / "rng_state_1.pth", checkpoint / "rng_state_0.pth")
    assert shortcomings(checkpoint) == []


def test_transformers_own_mark(ordinary, tmp_path):
    checkpoint = shutil.copytree(ordinary, tmp_path / "checkpoint-1")
    (checkpoint / "checkpoint-is-incomplete.txt").write_text("")
    assert shortcomings(checkpoint) == ["checkpoint-is-incomplete.txt says that it is not finished"]

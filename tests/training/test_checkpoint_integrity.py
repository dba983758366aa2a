import json
import shutil

import pytest
from toy import ToyViews, make_trainer
from transformers import Trainer

from hf_gradalign.training import GradientAlignmentTrainer
from hf_gradalign.training.checkpoint_integrity import (
    MANIFEST_NAME,
    find_problems,
    find_weight_problems,
    write_manifest,
)


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


def test_intact_checkpoint(checkpoint):
    assert find_problems(checkpoint) == []
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
        [found] = find_problems(checkpoint)
        assert found.startswith(path.name)
        path.write_bytes(content)


def test_every_file_deleted(checkpoint):
    # Without a manifest, nothing shows that these existed.
    is_listed = (checkpoint / MANIFEST_NAME).is_file()
    unknown = set() if is_listed else {"training_args.bin", "alignment_state.json", "process_states.json"}
    for path in files_of(checkpoint):
        content = path.read_bytes()
        path.unlink()
        assert find_problems(checkpoint) == ([] if path.name in unknown else [f"{path.name} is missing"])
        path.write_bytes(content)


def test_deleted_file_by_file(checkpoint):
    # As rmtree does. If only the training state is missing, it looks like save_only_model.
    for path in files_of(checkpoint):
        path.unlink()
        if path.name not in ("alignment_state.json", "process_states.json") or (checkpoint / MANIFEST_NAME).is_file():
            assert find_problems(checkpoint)
    shutil.rmtree(checkpoint)
    assert find_problems(checkpoint) == ["the folder is missing"]


def test_checkpoint_with_only_weights(tmp_path):
    make_trainer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1, save_only_model=True).train()
    checkpoint = tmp_path / "checkpoint-1"
    assert find_problems(checkpoint) == []
    (checkpoint / MANIFEST_NAME).unlink()
    assert find_problems(checkpoint) == []


def flip(path, position=0.5):
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 0x10
    path.write_bytes(content)


def zero(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 1000] = bytes(min(1000, len(content) - len(content) // 3))
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, zero])
def test_every_file_damaged_in_its_size(ours, tmp_path, damage):
    checkpoint = shutil.copytree(ours, tmp_path / "checkpoint-1")
    for path in files_of(checkpoint):
        content = path.read_bytes()
        damage(path)
        assert find_problems(checkpoint) == [f"{path.name} is damaged: its content is not what was saved"]
        assert find_problems(checkpoint, contents=False) == []
        path.write_bytes(content)
    assert find_problems(checkpoint) == []


@pytest.mark.parametrize(
    ("names", "damaged", "of_model"),
    [
        (["adapter_model.safetensors", "adapter_config.json", "README.md"], "adapter_model.safetensors", True),
        (["second/adapter_model.safetensors", "optimizer.pt"], "second/adapter_model.safetensors", True),
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"], "model.safetensors.index.json", True),
        (["model-00001-of-00002.safetensors"], "model-00001-of-00002.safetensors", True),
        (
            ["pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata"],
            "pytorch_model_fsdp_0/.metadata",
            True,
        ),
        (["pytorch_model_fsdp_0/__1_0.distcp", "optimizer_0/__0_0.distcp"], "optimizer_0/__0_0.distcp", False),
        (["pytorch_model_fsdp.bin", "optimizer.bin"], "optimizer.bin", False),
        (["model.safetensors", "rng_state_1.pth"], "rng_state_1.pth", False),
        (["model.safetensors", "scaler.pt"], "scaler.pt", False),
        (["model.safetensors", "scheduler.pt"], "scheduler.pt", False),
        (["model.safetensors", "trainer_state.json"], "trainer_state.json", False),
        (["model.safetensors", "process_states.json"], "process_states.json", False),
    ],
)
def test_other_kinds_of_checkpoints(tmp_path, names, damaged, of_model):
    checkpoint = tmp_path / "checkpoint-1"
    for name in names:
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_bytes(b'{"weights": 1234567890}')
    write_manifest(checkpoint, 1)
    assert find_problems(checkpoint) == find_weight_problems(checkpoint) == []
    flip(checkpoint / damaged, 0.7)
    assert find_problems(checkpoint) == [f"{damaged} is damaged: its content is not what was saved"]
    assert find_weight_problems(checkpoint) == (find_problems(checkpoint) if of_model else [])


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json", "preprocessor_config.json", "README.md"])
def test_edited_configuration_is_not_damage(ours, tmp_path, name):
    checkpoint = shutil.copytree(ours, tmp_path / "checkpoint-1")
    (checkpoint / name).write_text('{"dropout": 0.1}')
    write_manifest(checkpoint, 1)
    (checkpoint / name).write_text('{"dropout": 0.2, "note": "mine"}')
    (checkpoint / "notes.txt").write_text("mine")
    assert find_problems(checkpoint) == []
    if name.endswith(".json"):
        (checkpoint / name).write_text('{"dropout": ')
        assert find_problems(checkpoint) == [f"{name} is cut off or damaged"]


def test_edited_state_is_reported(ours, tmp_path):
    # It cannot be distinguished from damage, and would change a resumed run.
    checkpoint = shutil.copytree(ours, tmp_path / "checkpoint-1")
    path = checkpoint / "alignment_state.json"
    path.write_text(path.read_text().replace("0", "1", 1))
    assert find_problems(checkpoint) == ["alignment_state.json is damaged: its content is not what was saved"]


@pytest.mark.parametrize("content", ["[]", '{"files": {}}', '{"sequence": 1, "files": [1]}', "{", "[" * 100_000])
def test_damaged_manifest_is_reported(ours, tmp_path, content):
    checkpoint = shutil.copytree(ours, tmp_path / "checkpoint-1")
    (checkpoint / MANIFEST_NAME).write_text(content)
    assert find_problems(checkpoint) == [f"{MANIFEST_NAME} is damaged, and nothing else can be checked"]
    (checkpoint / MANIFEST_NAME).unlink()
    assert find_problems(checkpoint) == []


def test_shards_and_other_processes_random_states(ordinary, tmp_path):
    checkpoint = shutil.copytree(ordinary, tmp_path / "checkpoint-1")
    (checkpoint / "model.safetensors").rename(checkpoint / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert find_problems(checkpoint) == ["model-00002-of-00002.safetensors is missing"]
    shutil.copy(checkpoint / "model-00001-of-00002.safetensors", checkpoint / "model-00002-of-00002.safetensors")
    assert find_problems(checkpoint) == []
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_1.pth")
    assert find_problems(checkpoint) == ["rng_state.pth is missing"]
    shutil.copy(checkpoint / "rng_state_1.pth", checkpoint / "rng_state_0.pth")
    assert find_problems(checkpoint) == []


def test_transformers_own_mark(ordinary, tmp_path):
    checkpoint = shutil.copytree(ordinary, tmp_path / "checkpoint-1")
    (checkpoint / "checkpoint-is-incomplete.txt").write_text("")
    assert find_problems(checkpoint) == ["checkpoint-is-incomplete.txt says that it is not finished"]

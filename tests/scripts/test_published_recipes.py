"""The configuration files of the published rows."""

import re
from pathlib import Path

import pytest

from hf_gradalign.experiment import parse_arguments

FOLDER = Path(__file__).parents[2] / "scripts" / "recipes"
HEADS = {"aasist": "aasist", "tcm": "conformer_tcm", "mamba": "mamba"}
SOUNDS = "musan_rir:/data/musan:/data/RIRS_NOISES"
ROWS = {
    **{f"{head}_{method}": "rawboost" for head in HEADS for method in ("augmented", "dpda", "pcgrad")},
    **{f"tcm_{method}": "rawboost" for method in ("gradvac", "cagrad")},
    **{f"tcm_musan_rir_{method}": SOUNDS for method in ("dpda", "pcgrad")},
    **{f"tcm_musan_rir_rawboost_{method}": f"{SOUNDS}+rawboost" for method in ("dpda", "pcgrad")},
}


def test_there_is_one_a_row():
    assert {path.stem for path in FOLDER.glob("[!_]*.yaml")} == ROWS.keys()
    assert len(ROWS) == 15


@pytest.mark.parametrize("name", ROWS)
def test_is_the_published_recipe(name):
    run = parse_arguments([str(FOLDER / f"{name}.yaml"), "--corpus", "asvspoof2019_la:/data/LA"])
    run.settle_defaults()
    model, data, training = run.model, run.data, run.training
    head, method = re.match(r"([a-z]+)_.*?([a-z]+)$", name).groups()
    assert (model.model_name_or_path, model.head) == ("facebook/wav2vec2-xls-r-300m", HEADS[head])
    assert model.class_weights == [0.1, 0.9]
    assert not model.freeze_backbone
    assert not model.freeze_feature_encoder
    views = {"augmented": ROWS[name]} if method == "augmented" else {"clean": "clean", "augmented": ROWS[name]}
    assert data.view_recipes == views
    assert training.align_gradients == ("none" if method in ("augmented", "dpda") else method)
    assert (data.crop, data.augmentation_scope, data.rms_level) == ("leading", "utterance", None)
    assert round(data.window_seconds * 16_000) == round(data.eval_window_seconds * 16_000) == 66_800
    assert (training.learning_rate, training.weight_decay, training.coupled_weight_decay) == (1e-6, 1e-4, True)
    assert (training.lr_scheduler_type, training.warmup_steps, training.max_grad_norm) == ("constant", 0, 0)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (5, 1)
    assert not training.bf16
    assert not training.fp16
    assert (training.eval_strategy, training.metric_for_best_model, training.greater_is_better) == (
        "epoch",
        "loss",
        False,
    )
    assert (training.early_stopping_patience, training.average_best_checkpoints, training.seed) == (7, 5, 1234)
    assert training.num_train_epochs == 100


def test_published_figures_are_the_same_everywhere():
    table = {}
    for line in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            name, *_, df, wild, fake = (cell.strip() for cell in line.strip("|").split("|"))
            table[name.strip("`").removesuffix(".yaml")] = (df, wild, fake)
    assert table.keys() == ROWS.keys()
    for name, figures in table.items():
        text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
        assert re.search(r"21DF ([\d.]+), In-the-Wild ([\d.]+), FoR (\d+\.\d+)", text).groups() == figures
        assert f"scripts/recipes/{name}.yaml --corpus" in text


def test_other_folders_of_noise():
    words = [str(FOLDER / "tcm_musan_rir_pcgrad.yaml"), "--augmentation", "musan_rir:/mine"]
    assert parse_arguments(words).data.view_recipes["augmented"] == "musan_rir:/mine"

import json

import numpy as np
import pandas as pd
import pytest

from hf_gradalign.data import load_corpus

N_SEEDS, N_EPOCHS, N_UPDATES = 6, 4, 12
MODULES = ["backbone.first", "head"]


@pytest.fixture
def script(load_script, monkeypatch):
    script = load_script("describe_conflicts")
    monkeypatch.setattr(script, "N_PERMUTATIONS", 50)
    monkeypatch.setattr(script, "N_DRAWS", 200)
    return script


def write_study(folder, *, with_ids=True, change=lambda row: row):
    """Updates conflict when the first clip of the demo corpus is in them; then the augmented loss is three times."""
    ids = load_corpus("demo", splits=("train",))["train"]["utterance_id"][:24]
    generator = np.random.default_rng(0)
    epochs = []
    for seed in range(N_SEEDS):
        cell = folder / "cells" / f"run{seed}"
        cell.mkdir(parents=True)
        rows = []
        for step in range(1, N_EPOCHS * N_UPDATES + 1):
            clips = generator.choice(24, 4, replace=False)
            conflict = bool(0 in clips)
            loss = float(generator.uniform(0.1, 0.2))
            row = {"step": step, "epoch": step / N_UPDATES, "conflict": conflict}
            row |= {"cosine_clean_augmented": -0.1 if conflict else 0.5, "loss_clean": loss}
            row |= {"loss_augmented": loss * (3 if conflict else 1), "grad_norm_clean": 1.0, "grad_norm_augmented": 2.0}
            row |= {"module": MODULES, "module_cosine_clean_augmented": [-0.2 if conflict else 0.3, 0.1]}
            rows.append(change(row | ({"ids": [ids[clip] for clip in clips]} if with_ids else {})))
        (cell / "conflicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        loss = 0.0
        for epoch in range(1, N_EPOCHS + 1):
            cosine = float(generator.uniform(0, 1))
            epochs.append(
                {"cell": cell.name, "method": "dual_path", "seed": seed, "epoch": epoch}
                | {"eval_loss": loss, "cosine_mean": cosine}
            )
            loss += cosine  # the larger the cosine, the more the loss rises to the next epoch
    epochs.append({**epochs[0], "method": "pcgrad", "cell": "no such run"})
    pd.DataFrame(epochs).to_parquet(folder / "epochs.parquet")
    return ids


def test_what_conflicts_depend_on_is_found(script, tmp_path):
    ids = write_study(tmp_path)
    pytest.importorskip("matplotlib")
    assert script.main([str(tmp_path), "--collect", str(tmp_path), "--corpus", "demo"]) == 0
    updates, clips = (pd.read_parquet(tmp_path / name) for name in (script.UPDATES, script.TRAIN_CLIPS))
    assert len(updates) == N_SEEDS * N_EPOCHS * N_UPDATES
    assert sorted(clips["utterance_id"]) == sorted(ids)
    first = clips["utterance_id"].tolist().index(ids[0])
    assert [first in update for update in updates["clips"]] == updates["conflict"].tolist()

    systems = script.describe_systems(updates, clips).set_index("system")
    own = "bona fide" if clips["label"][first] == 1 else clips["system"][first]
    assert systems["excess"][own].low > 0
    assert sum(systems["share"]) == pytest.approx(1)
    assert sum(estimate.mean for estimate in systems["excess"]) == pytest.approx(0)
    assert script.describe_clips(updates, clips)["p"] < 0.05
    losses = script.describe_losses(updates).set_index("value")["factor"]
    assert losses["loss, ratio"] == pytest.approx((3, 3, 3))
    assert losses["norm of the gradient, ratio"] == pytest.approx((1, 1, 1))
    assert script.describe_modules(updates).to_numpy().tolist() == [["backbone.first", 1, 0], ["head", 0, 0]]
    prediction = script.describe_prediction(pd.read_parquet(tmp_path / "epochs.parquet"))
    assert prediction["unadjusted"] == pytest.approx((1, 1, 1))
    page = (tmp_path / script.PAGE).read_text()
    assert f"{len(updates)} updates of {N_SEEDS} seeds" in page
    assert "Those of few seeds are too narrow." in page
    assert "| loss, ratio | 3.000 | 1.000 | 3.00 (3.00 to 3.00) |" in page
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        *("conflicting_layers.png", "conflicting_clips.png")
    }


def test_conflicts_by_chance_are_not_taken_for_more(script, tmp_path):
    write_study(tmp_path)
    script.collect(tmp_path, "demo", tmp_path)
    updates, clips = (pd.read_parquet(tmp_path / name) for name in (script.UPDATES, script.TRAIN_CLIPS))
    updates["conflict"] = np.random.default_rng(1).random(len(updates)) < 0.3
    assert script.describe_clips(updates, clips)["p"] > 0.05
    change = script.describe_losses(updates).set_index("value")["factor"]["loss, clean"]
    assert change.low < 1 < change.high


def test_a_record_without_ids_is_refused(script, tmp_path, capsys):
    write_study(tmp_path, with_ids=False)
    assert script.main([str(tmp_path), "--collect", str(tmp_path)]) == 2
    assert "train with --conflict_record_ids" in capsys.readouterr().err


def test_modules_by_name_and_updates_without_finite_gradients(script, tmp_path):
    def change(row):
        if row["step"] % 4 == 0:  # the first module had no gradient
            return row | {"module": MODULES[1:], "module_cosine_clean_augmented": [-0.1]}
        if row["step"] % 4 == 1:
            return row | {"conflict": None, "cosine_clean_augmented": None}
        if row["step"] % 4 == 2:
            return row | {"module": MODULES[::-1], "module_cosine_clean_augmented": [-0.1, None]}
        return row

    write_study(tmp_path, change=change)
    script.collect(tmp_path, "demo", tmp_path)
    updates = pd.read_parquet(tmp_path / script.UPDATES)
    assert len(updates) == 3 / 4 * N_SEEDS * N_EPOCHS * N_UPDATES
    table = script.describe_modules(updates).set_index("module")
    assert table.loc["backbone.first"].tolist() == [1, 0]  # of the updates in which it has a cosine
    shares = [1 - np.mean(updates["step"][updates["conflict"] == kind] % 4 == 3) for kind in (True, False)]
    assert table.loc["head"].tolist() == pytest.approx(shares)


def test_clips_of_a_corpus_without_systems(script, tmp_path, monkeypatch):
    write_study(tmp_path)
    train = load_corpus("demo", splits=("train",))["train"]
    bare = train.remove_columns(["system", "language", "duration", "speaker"])
    monkeypatch.setattr(script, "load_corpus", lambda *_, **__: {"train": bare})
    script.collect(tmp_path, "demo", tmp_path)
    updates, clips = (pd.read_parquet(tmp_path / name) for name in (script.UPDATES, script.TRAIN_CLIPS))
    assert script.describe_systems(updates, clips)["system"].tolist() == ["bona fide", "spoof"]
    clips["system"] = None
    assert script.describe_systems(updates, clips)["system"].tolist() == ["bona fide", "unknown"]


def test_what_cannot_be_described(script, tmp_path, capsys):
    assert script.main([str(tmp_path)]) == 2
    assert "has no epochs.parquet. Give the folder of a study" in capsys.readouterr().err
    write_study(tmp_path)
    assert script.main([str(tmp_path)]) == 2
    assert "has no updates.parquet. Make it with --collect" in capsys.readouterr().err
    script.collect(tmp_path, "demo", tmp_path)
    updates = pd.read_parquet(tmp_path / script.UPDATES)
    updates.assign(conflict=False).to_parquet(tmp_path / script.UPDATES)
    assert script.main([str(tmp_path)]) == 2
    assert "of 288 updates, all or none conflict" in capsys.readouterr().err
    updates[updates["seed"] == 0].to_parquet(tmp_path / script.UPDATES)
    assert script.main([str(tmp_path)]) == 2
    assert "intervals are over seeds, and there is only one" in capsys.readouterr().err
    epochs = pd.read_parquet(tmp_path / "epochs.parquet")
    other = epochs[epochs["method"] == "dual_path"].assign(cell=lambda own: own["cell"] + "_other_head")
    pd.concat([epochs, other]).to_parquet(tmp_path / "epochs.parquet")
    assert script.main([str(tmp_path), "--collect", str(tmp_path)]) == 2
    assert f"{2 * N_SEEDS} runs without alignment, but only {N_SEEDS} seeds" in capsys.readouterr().err


def test_another_corpus_is_refused(script, tmp_path, monkeypatch):
    write_study(tmp_path)
    other = load_corpus("demo", splits=("test",))["test"]
    monkeypatch.setattr(script, "load_corpus", lambda *_, **__: {"train": other})
    with pytest.raises(ValueError, match="other clips than /data/other: give the study's --corpus"):
        script.collect(tmp_path, "/data/other", tmp_path)

import json
import math
from copy import deepcopy
from itertools import combinations
from types import SimpleNamespace

import datasets
import pandas
import pytest
import torch
from toy import ToyViews, make_arguments, make_model, make_trainer, run_processes
from transformers import HfArgumentParser, TrainerCallback, TrainerState

from hf_gradalign.alignment import AlignedUpdate
from hf_gradalign.training import (
    ConflictRecorder,
    GradientAlignmentArguments,
    GradientAlignmentTrainer,
    read_conflict_rows,
)
from hf_gradalign.training.conflicts.record import ConflictRecord

MODULES = ["hidden", "norm", "classifier"]
RECORD = {"conflict_record": "jsonl", "conflict_record_modules": True}


class WatchedTrainer(GradientAlignmentTrainer):
    """Computes each view's gradient separately, with plain autograd on a copy of the model."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.watched = []

    def training_step(self, model, inputs, num_items_in_batch=None):
        copy = deepcopy(self.accelerator.unwrap_model(model))
        names, parameters = zip(*copy.named_parameters(), strict=True)
        views = {}
        for view, batch in inputs.items():
            loss = copy(**batch).loss
            gradients = [g.double().flatten() for g in torch.autograd.grad(loss, parameters)]
            by_module = {
                module: torch.cat([g for g, name in zip(gradients, names, strict=True) if name.startswith(module)])
                for module in MODULES
            }
            views[view] = (float(loss.detach()), torch.cat(gradients), by_module)
        self.watched.append(views)
        return super().training_step(model, inputs, num_items_in_batch)


def three_views():
    dataset = ToyViews(views=("clean", "augmented", "third"))
    dataset.third = dataset.clean.roll(2, 0) * 1.5 - dataset.augmented
    return dataset


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def rows_of(folder):
    [path] = folder.glob("conflicts.*")
    return list(read_conflict_rows(path))


@pytest.mark.parametrize("scope", ["model", "parameter"])
@pytest.mark.parametrize("dataset", [ToyViews(), three_views()], ids=["two", "three"])
def test_values_are_those_of_plain_autograd(tmp_path, dataset, scope):
    trainer = make_trainer(
        tmp_path, dataset, trainer_class=WatchedTrainer, align_gradients="pcgrad", alignment_scope=scope, **RECORD
    )
    trainer.train()
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["epoch"] for row in rows] == [step / 4 for step in range(1, 9)]
    assert {row["conflict"] for row in rows} == ({True, False} if len(dataset.views) == 2 else {True})
    close = {"rel": 1e-4, "abs": 1e-6}
    for row, views in zip(rows, trainer.watched, strict=True):
        assert row["module"] == MODULES
        for view, (loss, gradient, by_module) in views.items():
            assert row[f"loss_{view}"] == pytest.approx(loss, **close)
            assert row[f"grad_norm_{view}"] == pytest.approx(float(gradient.norm()), **close)
            norms = [float(by_module[module].norm()) for module in MODULES]
            assert row[f"module_grad_norm_{view}"] == pytest.approx(norms, **close)
        conflict = False
        for a, b in combinations(views, 2):
            (_, g_a, of_a), (_, g_b, of_b) = views[a], views[b]
            assert row[f"cosine_{a}_{b}"] == pytest.approx(cosine(g_a, g_b), **close)
            assert row[f"norm_ratio_{b}_{a}"] == pytest.approx(float(g_b.norm() / g_a.norm()), **close)
            cosines = [cosine(of_a[module], of_b[module]) for module in MODULES]
            assert row[f"module_cosine_{a}_{b}"] == pytest.approx(cosines, **close)
            conflict |= cosine(g_a, g_b) < 0
        assert row["conflict"] == conflict
        if len(views) == 2 and scope == "model":
            (_, g1, _), (_, g2, _) = views.values()
            product = float(g1 @ g2)
            expected = (1 - min(0, product) / float(g1 @ g1), 1 - min(0, product) / float(g2 @ g2))
            weights = (row["weight_clean"], row["weight_augmented"])
            assert weights == pytest.approx(tuple(w / 2 for w in expected), **close)


@pytest.mark.parametrize("scope", ["model", "module"])
def test_says_what_the_log_says(tmp_path, scope):
    trainer = make_trainer(tmp_path, align_gradients="gradvac", alignment_scope=scope, logging_steps=1, **RECORD)
    trainer.train()
    logged = trainer.state.log_history[:-1]
    compared = 0
    for row, log in zip(rows_of(tmp_path), logged, strict=True):
        for name in (name for name in row if name.startswith(("cosine", "norm_ratio", "grad_norm", "weight", "loss"))):
            assert row[name] == pytest.approx(log[name], rel=1e-5, abs=1e-6), name
            compared += 1
        assert float(row["conflict"]) == log["conflict_rate"]
        assert row["epoch"] == log["epoch"]
    assert compared == 8 * 8
    assert all(type(value) in (float, int) for log in logged for value in log.values())  # as trackers require


def test_off_by_default(tmp_path):
    make_trainer(tmp_path).train()
    assert not list(tmp_path.glob("conflicts*"))


def test_a_row_an_update_also_under_accumulation(tmp_path):
    make_trainer(tmp_path / "whole", **RECORD).train()
    make_trainer(tmp_path / "parts", per_device_train_batch_size=4, gradient_accumulation_steps=3, **RECORD).train()
    assert_same(rows_of(tmp_path / "whole"), rows_of(tmp_path / "parts"))


def test_only_the_losses_are_averaged_over_processes_once_a_transfer(tmp_path, monkeypatch):
    make_trainer(tmp_path / "one", **RECORD).train()
    trainer = make_trainer(tmp_path / "two", **RECORD)
    shapes = []

    def reduce(tensor, reduction):
        shapes.append((tuple(tensor.shape), reduction))
        return tensor + 1

    processes = SimpleNamespace(num_processes=2, reduce=reduce)
    monkeypatch.setattr(trainer.conflict_recorder, "_trainer", Beside(trainer, accelerator=processes))
    trainer.train()
    assert shapes == [((8, 2), "mean")]
    for row, other in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "two"), strict=True):
        for view in ("clean", "augmented"):
            assert other.pop(f"loss_{view}") == pytest.approx(row.pop(f"loss_{view}") + 1, abs=1e-5)
        assert row == other


class Beside:
    """An object with some attributes, and all others from another object."""

    def __init__(self, other, **own):
        self.__dict__.update(own, _other=other)

    def __getattr__(self, name):
        return getattr(self._other, name)


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_write_what_one_writes(tmp_path):
    options = {"align_gradients": "pcgrad", "conflict_record_ids": True, **RECORD}
    make_trainer(tmp_path / "whole", ToyViews(has_ids=True), **options).train()
    run_processes(2, {tmp_path / "parts": {"per_device_train_batch_size": 6, "ddp_backend": "gloo", **options}})
    whole, parts = rows_of(tmp_path / "whole"), rows_of(tmp_path / "parts")
    for row in (*whole, *parts):
        row["ids"] = sorted(row["ids"])  # each process has every other item
    assert_same(whole, parts)


def assert_same(rows, others):
    for row, other in zip(rows, others, strict=True):
        assert list(row) == list(other)
        for name, value in row.items():
            is_text = name in ("module", "ids")
            assert other[name] == (value if is_text else pytest.approx(value, rel=1e-3, abs=1e-5)), name


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_ids_are_those_of_the_items_of_each_update(tmp_path, file_format):
    dataset, seen = ToyViews(has_ids=True), []

    class Watched(type(dataset)):
        def __getitem__(self, index):
            seen.append(f"item-{index}")
            return super().__getitem__(index)

    dataset.__class__ = Watched
    options = {"conflict_record": file_format, "conflict_record_ids": True, "gradient_accumulation_steps": 2}
    make_trainer(tmp_path, dataset, per_device_train_batch_size=6, **options).train()
    rows = rows_of(tmp_path)
    assert [len(row["ids"]) for row in rows] == [12] * 8
    assert [name for row in rows for name in row["ids"]] == seen


def test_ids_of_items_that_have_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--conflict_record_ids: the batches have no ids"):
        make_trainer(tmp_path, conflict_record="jsonl", conflict_record_ids=True).train()


def test_held_on_the_device_for_a_bounded_number_of_updates(tmp_path, monkeypatch):
    written = []
    append = ConflictRecord.append

    def count(self, rows):
        rows = list(rows)
        written.append([row["step"] for row in rows])
        append(self, rows)

    monkeypatch.setattr(ConflictRecord, "append", count)
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=5, **RECORD)
    trainer.conflict_recorder._flush_every = 3
    trainer.train()
    # Every third, before a checkpoint, and at the end.
    assert written == [[1, 2, 3], [4, 5], [6, 7, 8]]


def test_an_update_makes_the_host_wait_for_no_device(tmp_path):
    # Tensors on the meta device cannot be read.
    trainer = make_trainer(tmp_path, **RECORD)
    recorder, args = trainer.conflict_recorder, trainer.args
    state = TrainerState(global_step=0, epoch=0.0)
    recorder.on_train_begin(args, state, trainer.control)

    def meta(*shape):
        return torch.empty(shape, device="meta")

    losses = {"clean": meta(), "augmented": meta()}
    parameters = len(trainer.parameter_groups.names)
    for step in range(1, 4):
        update = (meta(parameters, 2, 2), meta(1, 2, 2), meta(1, 2), losses, meta())
        trainer.last_update = AlignedUpdate(list(losses), *update)
        state.global_step = step
        recorder.on_step_end(args, state, trainer.control)
    with pytest.raises(NotImplementedError, match="meta"):
        recorder.flush()


class Killed(TrainerCallback):
    """Ends the run after an update, without `on_train_end`."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
@pytest.mark.parametrize("garbage", [b"", b'{"step": 8, "epo'])
def test_a_killed_run_is_resumed_as_if_never_interrupted(tmp_path, file_format, garbage):
    options = RECORD | {
        "conflict_record": file_format,
        "align_gradients": "gradvac",
        "save_strategy": "steps",
        "save_steps": 5,
        "max_steps": 11,
    }
    make_trainer(tmp_path / "whole", **options).train()
    killed = make_trainer(tmp_path / "killed", **options, callbacks=[Killed(8)])
    killed.conflict_recorder._flush_every = 2
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    left = tmp_path / "killed" / "conflicts.jsonl"
    with left.open("ab") as file:
        file.write(garbage)
    assert [row["step"] for row in read_conflict_rows(left)] == [1, 2, 3, 4, 5, 6, 7]
    make_trainer(tmp_path / "killed", **options).train(resume_from_checkpoint=True)
    name = f"conflicts.{file_format}"
    assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert len(list((tmp_path / "killed").glob("*conflicts*"))) == 1


def test_rows_are_written_before_their_checkpoint(tmp_path, monkeypatch):
    # Killed when a checkpoint can be resumed from, before any callback is called.
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=4, **RECORD)

    def save_state(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.TrainerState.save_to_json", lambda self, path: save_state(path))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3, 4]


def test_a_checkpoint_of_weights_alone_has_its_rows_too(tmp_path, monkeypatch):
    monkeypatch.setattr(ConflictRecorder, "rescue", lambda self: None)  # a killed process cannot do this
    options = {"save_strategy": "steps", "save_steps": 4, "save_only_model": True, **RECORD}
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, **options, callbacks=[Killed(6)]).train()
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3, 4]


def test_resumed_in_another_folder(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 4, **RECORD}
    make_trainer(tmp_path / "first", **options).train()
    resumed = make_trainer(tmp_path / "second", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-4"))
    name = "conflicts.jsonl"
    assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_says_what_is_missing_after_a_resume(tmp_path, monkeypatch):
    make_trainer(tmp_path, save_strategy="steps", save_steps=4).train()
    messages = []
    monkeypatch.setattr("hf_gradalign.training.conflicts.recorder.logger.warning", messages.append)
    make_trainer(tmp_path, **RECORD).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert messages == ["The conflict record lacks the updates 1 to 4."]
    assert [row["step"] for row in rows_of(tmp_path)] == [5, 6, 7, 8]


def test_a_second_training_starts_over(tmp_path):
    trainer = make_trainer(tmp_path, **RECORD)
    trainer.train()
    trainer.add_callback(Killed(5))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.args.max_steps = 3
    trainer.train()
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_what_is_not_finite_is_null(tmp_path, file_format):
    dataset = ToyViews()
    dataset.augmented[5] = math.nan
    options = {**RECORD, "conflict_record": file_format, "on_nonfinite": "skip"}
    make_trainer(tmp_path, dataset, max_steps=4, **options).train()
    rows = list(read_conflict_rows(tmp_path / f"conflicts.{file_format}"))
    assert sorted(row["skipped"] for row in rows) == [False, False, False, True]
    [row] = [row for row in rows if row["skipped"]]
    assert row["conflict"] is None
    assert row["cosine_clean_augmented"] is None
    assert row["grad_norm_augmented"] is None
    assert row["module"] == MODULES
    assert row["module_grad_norm_augmented"] == [None] * 3
    if file_format == "jsonl":
        text = (tmp_path / "conflicts.jsonl").read_text()
        assert all(json.loads(line, parse_constant=pytest.fail) for line in text.splitlines())


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, RuntimeError, MemoryError])
@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_all_rows_are_there_however_training_ends(tmp_path, ending, file_format):
    class Ending(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise ending

    trainer = make_trainer(tmp_path, **{**RECORD, "conflict_record": file_format}, callbacks=[Ending()])
    with pytest.raises(ending):
        trainer.train()
    assert [row["step"] for row in read_conflict_rows(tmp_path / "conflicts.jsonl")] == [1, 2, 3, 4, 5]


def test_a_record_that_cannot_be_written_hides_no_error(tmp_path, monkeypatch, caplog):
    def full(self, rows):
        raise OSError(28, "No space left on device")

    trainer = make_trainer(tmp_path, **RECORD, callbacks=[Killed(3)])
    monkeypatch.setattr(ConflictRecord, "append", full)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert "The last 2 rows of the conflict record could not be written: [Errno 28] No space" in caplog.text


def test_norms_are_those_of_unscaled_gradients(tmp_path):
    options = {"max_grad_norm": 0.0, **RECORD}
    make_trainer(tmp_path / "plain", **options).train()
    scaled = make_trainer(tmp_path / "scaled", **options)
    scaled.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled.train()
    assert float(scaled.last_update.loss_scale) == 1024
    assert_same(rows_of(tmp_path / "plain"), rows_of(tmp_path / "scaled"))


def test_a_module_without_a_gradient_is_left_out(tmp_path):
    model = make_model()
    model.norm.requires_grad_(False)
    make_trainer(tmp_path, model=model, **RECORD).train()
    assert {tuple(row["module"]) for row in rows_of(tmp_path)} == {("hidden", "classifier")}


def test_one_view_has_norms_and_no_cosine(tmp_path):
    make_trainer(tmp_path, ToyViews(views=("clean",)), **RECORD).train()
    row = rows_of(tmp_path)[0]
    assert row["conflict"] is False
    assert not [name for name in row if "cosine" in name or "ratio" in name]
    assert row["grad_norm_clean"] > 0


def test_an_ordinary_batch_has_no_row(tmp_path):
    items = [item["clean"] for item in ToyViews(48)]
    make_trainer(tmp_path, items, **RECORD).train()
    assert not list(tmp_path.glob("conflicts*"))


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_pandas_and_datasets_read_it(tmp_path, file_format):
    make_trainer(tmp_path / "run", align_gradients="pcgrad", **RECORD | {"conflict_record": file_format}).train()
    path = tmp_path / "run" / f"conflicts.{file_format}"
    frame = pandas.read_json(path, lines=True) if file_format == "jsonl" else pandas.read_parquet(path)
    assert frame["conflict"].dtype == bool
    modules = frame.explode([name for name in frame if name.startswith("module")])
    assert len(modules) == 8 * 3
    assert set(modules.groupby("module")["module_cosine_clean_augmented"].mean().index) == set(MODULES)
    kind = "json" if file_format == "jsonl" else "parquet"
    loaded = datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["module"][0] == MODULES
    assert loaded["cosine_clean_augmented"][:] == pytest.approx(frame["cosine_clean_augmented"].tolist())


@pytest.mark.parametrize(
    ("words", "record"),
    [((), "none"), (("--conflict_record",), "jsonl"), (("--conflict_record", "parquet"), "parquet")],
)
def test_command_line(words, record):
    parser = HfArgumentParser(GradientAlignmentArguments)
    [args] = parser.parse_args_into_dataclasses(list(words), look_for_args_file=False)
    assert args.conflict_record == record


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conflict_record": "csv"}, "--conflict_record must be one of none, jsonl, parquet, got 'csv'"),
        ({"conflict_record_modules": True}, "--conflict_record_modules adds to the conflict record: also"),
        ({"conflict_record_ids": True}, "--conflict_record_ids adds to the conflict record: also"),
    ],
)
def test_errors(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_arguments(tmp_path, **options)

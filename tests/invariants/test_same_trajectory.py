"""Invariant 1: batch x accumulation x processes give the same trajectory, also with class weights."""

from functools import cache

import pytest
from toy import ToyViews, largest_difference, make_model, make_trainer, read_run, run_processes, weights_of

MEANS = ("conflict_rate", "cosine_clean_augmented", "grad_norm_clean", "grad_norm_augmented")
LOSSES = ("loss", "loss_clean", "loss_augmented")
METHODS = ("none", "pcgrad", "gradvac", "cagrad")
CLASS_WEIGHTS = [None, (0.1, 0.9)]
TWO_PROCESSES = [(6, 1), (3, 2)]
DDP = {
    "ddp_find_unused_parameters": False,
    "ddp_bucket_cap_mb": 1,
    "ddp_broadcast_buffers": False,
    "ddp_static_graph": True,
    "ddp_timeout": 60,
}


def train(tmp_path, method, class_weights, n_items=48, **options):
    trainer = make_trainer(
        tmp_path, ToyViews(n_items), make_model(class_weights), align_gradients=method, max_grad_norm=0.3, **options
    )
    trainer.train()
    return weights_of(trainer), trainer.state.log_history


@pytest.fixture(scope="module")
def train_whole(tmp_path_factory):
    """The run that all others are compared with."""

    @cache
    def train_once(method, class_weights, n_items=48):
        return train(tmp_path_factory.mktemp("whole"), method, class_weights, n_items)

    return train_once


@pytest.fixture(scope="module")
def in_two_processes(tmp_path_factory):
    """Results of two processes by batch size, accumulation and class weights, all in one launch."""
    folders, specifications = {}, {}
    for batch, accumulation in TWO_PROCESSES:
        for class_weights in CLASS_WEIGHTS:
            folder = tmp_path_factory.mktemp("parts")
            folders[batch, accumulation, class_weights] = folder
            specifications[folder] = {
                "align_gradients": "gradvac",
                "max_grad_norm": 0.3,
                "class_weights": class_weights,
                "per_device_train_batch_size": batch,
                "gradient_accumulation_steps": accumulation,
                "ddp_backend": "gloo",
            }
    folder = folders["with DDP's options"] = tmp_path_factory.mktemp("parts")
    specifications[folder] = {**specifications[folders[3, 2, None]], **DDP}
    folder = folders["without a log"] = tmp_path_factory.mktemp("parts")
    specifications[folder] = {**specifications[folders[6, 1, None]], "logging_steps": 100}
    run_processes(2, specifications)
    return {case: read_run(folder) for case, folder in folders.items()}


def assert_same(first, second):
    (weights, history), (other_weights, other_history) = first, second
    assert largest_difference(weights, other_weights) < 1e-6
    for row, other in zip(history[:-1], other_history[:-1], strict=True):
        for name in MEANS + LOSSES:
            assert row[name] == pytest.approx(other[name], abs=1e-4), name


def test_the_mean_loss_is_that_of_all_processes(train_whole, in_two_processes):
    losses = [run[1][-1]["train_loss"] for run in (train_whole("gradvac", None), in_two_processes["without a log"])]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("class_weights", CLASS_WEIGHTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("batch", "accumulation"), [(6, 2), *(pytest.param(*e, marks=pytest.mark.slow) for e in ((1, 12), (4, 3), (3, 4)))]
)
def test_accumulation(tmp_path, train_whole, method, class_weights, batch, accumulation):
    whole = train_whole(method, class_weights)
    parts = train(
        tmp_path,
        method,
        class_weights,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )
    assert_same(whole, parts)


@pytest.mark.parametrize("class_weights", CLASS_WEIGHTS)
@pytest.mark.parametrize(("batch", "accumulation"), [(4, 3), (3, 4)])
def test_uneven_last_group(tmp_path, train_whole, class_weights, batch, accumulation):
    # 44 items: an epoch ends with an update of 8, from 2 micro-batches of 4 or from 3 of 3, 3 and 2.
    whole = train_whole("pcgrad", class_weights, n_items=44)
    parts = train(
        tmp_path,
        "pcgrad",
        class_weights,
        n_items=44,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )
    assert_same(whole, parts)


@pytest.mark.parametrize("class_weights", CLASS_WEIGHTS)
@pytest.mark.parametrize(("batch", "accumulation"), TWO_PROCESSES)
def test_two_processes(train_whole, in_two_processes, class_weights, batch, accumulation):
    whole = train_whole("gradvac", class_weights)
    assert_same(whole, in_two_processes[batch, accumulation, class_weights])


def test_two_processes_with_options_of_ddp(train_whole, in_two_processes):
    assert_same(train_whole("gradvac", None), in_two_processes["with DDP's options"])


@pytest.mark.slow
def test_a_nan_loss_on_one_process_is_logged_and_does_not_hang(tmp_path):
    specification = {
        "per_device_train_batch_size": 6,
        "ddp_backend": "gloo",
        "ddp_timeout": 60,
        "logging_steps": 1,
        "max_steps": 2,
        "bad_item": 3,
        "on_nonfinite": "skip",
    }
    run_processes(2, {tmp_path: specification})
    _, history = read_run(tmp_path)
    assert len(history) == 3
    assert "loss_clean" in history[0]
    assert [row["skipped_updates"] for row in history[:2]] in ([1, 1], [0, 1], [0, 0])

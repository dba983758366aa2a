"""Models from `model_init`: created at the start of every training, and for every trial of a search."""

import pytest
import torch
from toy import (
    ToyClassifier,
    ToyViews,
    collate,
    largest_difference,
    make_arguments,
    make_model,
    make_trainer,
    weights_of,
)

from hf_gradalign.training import GradientAlignmentTrainer, WeightedCrossEntropy

WEIGHTS = [0.1, 0.9]


def trainer_that_makes_its_model(folder, model_init, **options):
    trainer_options = {k: options.pop(k) for k in ("compute_loss_func", "eval_dataset") if k in options}
    return GradientAlignmentTrainer(
        args=make_arguments(folder, align_gradients="pcgrad", **options),
        model_init=model_init,
        train_dataset=ToyViews(),
        data_collator=collate,
        **trainer_options,
    )


@pytest.mark.parametrize("options", [{}, {"label_smoothing_factor": 0.1}])
def test_class_weights_count_as_with_a_model(tmp_path, options):
    given = make_trainer(tmp_path / "a", model=make_model(WEIGHTS), align_gradients="pcgrad", **options)
    made = trainer_that_makes_its_model(tmp_path / "b", lambda: make_model(WEIGHTS), **options)
    assert made.class_weights.tolist() == given.class_weights.tolist()
    assert given.train().training_loss == made.train().training_loss
    assert largest_difference(weights_of(given), weights_of(made)) == 0
    unweighted = trainer_that_makes_its_model(tmp_path / "c", lambda: make_model(), **options)
    assert unweighted.class_weights is None
    assert unweighted.train().training_loss != made.train().training_loss


def test_each_training_starts_from_a_new_model(tmp_path):
    made = []
    trainer = trainer_that_makes_its_model(tmp_path, lambda: made.append(make_model(WEIGHTS)) or made[-1])
    first, second = trainer.train().training_loss, trainer.train().training_loss
    assert first == second
    assert trainer.model is made[-1]
    assert len(made) == 3  # one in the constructor, one for each training


def test_class_weights_come_from_the_trained_model(tmp_path):
    weights = iter([None, WEIGHTS, None])
    trainer = trainer_that_makes_its_model(tmp_path, lambda: make_model(next(weights)))
    assert trainer.class_weights is None
    trainer.train()
    torch.testing.assert_close(trainer.class_weights, torch.tensor(WEIGHTS))
    assert isinstance(trainer.compute_loss_func, WeightedCrossEntropy)
    trainer.train()
    assert trainer.class_weights is trainer.compute_loss_func is None


def test_your_own_loss_is_kept(tmp_path):
    called = []

    def loss(outputs, labels, num_items_in_batch=None):
        called.append(len(labels))
        return torch.nn.functional.cross_entropy(outputs["logits"], labels)

    trainer = trainer_that_makes_its_model(tmp_path, lambda: make_model(WEIGHTS), compute_loss_func=loss)
    trainer.train()
    assert called
    assert trainer.class_weights is None
    assert trainer.compute_loss_func.function is loss


def test_model_or_model_init_is_required(tmp_path):
    with pytest.raises(RuntimeError, match="requires either a `model` or `model_init`"):
        GradientAlignmentTrainer(args=make_arguments(tmp_path))
    with pytest.raises(ValueError, match="not both"):
        GradientAlignmentTrainer(make_model(), make_arguments(tmp_path), model_init=lambda: make_model())


class WideClassifier(ToyClassifier):
    def __init__(self, width, class_weights):
        super().__init__(class_weights)
        self.hidden = torch.nn.Linear(6, width)
        self.norm = torch.nn.LayerNorm(width)
        self.classifier = torch.nn.Linear(width, 2)


def test_hyperparameter_search(tmp_path):
    """Trials differ in model, class weights, method and rate; each equals the same training alone."""
    methods = ["none", "gradvac", "pcgrad"]
    evaluated = [ToyViews(24)[i]["augmented"] for i in range(24)]
    common = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}
    common |= {"eval_dataset": evaluated, "conflict_record": "jsonl", "load_best_model_at_end": True}

    def make(number):
        torch.manual_seed(number)
        return WideClassifier(8 + 8 * number, [0.5, 0.5 + 0.1 * number])

    def space(trial):
        return {
            "align_gradients": trial.suggest_categorical("align_gradients", methods),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2),
        }

    trained = []
    trainer = trainer_that_makes_its_model(
        tmp_path / "search", lambda trial: make(0 if trial is None else trial.number), **common
    )

    def objective(metrics):
        trained.append((trainer.args.align_gradients, trainer.args.learning_rate, metrics["eval_loss"]))
        return metrics["eval_loss"]

    optuna = pytest.importorskip("optuna")
    sampler = optuna.samplers.RandomSampler(seed=0)
    best = trainer.hyperparameter_search(space, objective, n_trials=3, backend="optuna", sampler=sampler)
    last = trained[1::2]  # of two evaluations per trial
    assert len(last) == 3
    assert best.objective == min(loss for _, _, loss in last)
    assert best.hyperparameters.keys() == {"align_gradients", "learning_rate"}
    for number, (method, rate, loss) in enumerate(last):
        alone = make_trainer(
            tmp_path / f"alone-{number}",
            model=make(number),
            **common | {"align_gradients": method, "learning_rate": rate},
        )
        alone.train()
        assert alone.state.log_history[-2]["eval_loss"] == loss
        folder, record = tmp_path / "search" / f"run-{number}", "conflicts.jsonl"
        assert (folder / record).read_text() == (tmp_path / f"alone-{number}" / record).read_text()
        assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-8"]
    assert not (tmp_path / "search" / "conflicts.jsonl").exists()


def test_a_search_over_mappings(tmp_path):
    optuna = pytest.importorskip("optuna")
    seen = []
    trials = [
        {"align_gradients": "GradVac", "alignment_options": '{"beta": 0.1}', "view_weights": '{"clean": 3}'},
        {"align_gradients": "pcgrad"},
        {"align_gradients": "gradvac", "alignment_options": {"beta": 0.9}, "early_stopping_patience": 1},
    ]
    options = {"eval_dataset": [ToyViews(4)[0]["clean"]], "early_stopping_patience": 4, "metric_for_best_model": "loss"}
    options |= {"eval_strategy": "steps", "eval_steps": 1, "learning_rate": 0.0, "view_weights": {"augmented": 2}}
    trainer = trainer_that_makes_its_model(tmp_path, lambda: make_model(), **options)

    def objective(metrics):
        method = trainer.alignment_method
        seen.append(
            (type(method).__name__, getattr(method, "beta", None), trainer.args.view_weights, trainer.state.global_step)
        )
        return 0.0

    sampler = optuna.samplers.RandomSampler(seed=0)
    trainer.hyperparameter_search(
        lambda trial: trials[trial.number], objective, n_trials=3, backend="optuna", sampler=sampler
    )
    names = [each for each in seen if each[3] in (2, 5)]
    assert ("GradVac", 0.1, {"clean": 3.0}, 5) in names
    assert ("PCGrad", None, {"augmented": 2.0}, 5) in names
    assert ("GradVac", 0.9, {"augmented": 2.0}, 2) in names
    for bad, message in (
        ({"view_weights": "[1]"}, "--view_weights must be a mapping"),
        ({"alignment_options": "beta"}, "--alignment_options is not JSON"),
        ({"average_best_checkpoints": 2}, "average_best_checkpoints works in output_dir"),
    ):
        with pytest.raises(ValueError, match=message):
            trainer.hyperparameter_search(lambda trial, bad=bad: bad, n_trials=1, backend="optuna", sampler=sampler)

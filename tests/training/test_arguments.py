import pytest
from toy import make_arguments
from transformers import HfArgumentParser

from hf_gradalign.metrics.functional.t_dcf import AsvErrorRates
from hf_gradalign.metrics.registry import METRICS, decision_metrics, detection_cost_metrics, tandem_metric
from hf_gradalign.training import GradientAlignmentArguments


def parse(*arguments):
    parser = HfArgumentParser(GradientAlignmentArguments)
    return parser.parse_args_into_dataclasses(list(arguments), look_for_args_file=False)[0]


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        ((), "none"),
        (("--align_gradients",), "pcgrad"),
        (("--align_gradients", "cagrad"), "cagrad"),
        (("--align_gradients", "--max_steps", "4"), "pcgrad"),
    ],
)
def test_bare_flag_means_pcgrad(arguments, method):
    assert parse(*arguments).align_gradients == method


@pytest.mark.parametrize(("value", "method"), [(True, "pcgrad"), (False, "none"), (None, "none")])
def test_true_means_pcgrad(value, method, tmp_path):
    assert make_arguments(tmp_path, align_gradients=value).align_gradients == method


def test_method_must_be_a_name(tmp_path):
    with pytest.raises(ValueError, match="there is no alignment method 3; available: none, pcgrad"):
        make_arguments(tmp_path, align_gradients=3)


def test_options_are_json():
    arguments = parse("--align_gradients", "gradvac", "--alignment_options", '{"beta": 0.1}')
    assert arguments.make_method().beta == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"align_gradients": "pcgard"}, "no alignment method 'pcgard'; available: none, pcgrad"),
        ({"align_gradients": "cagrad", "alignment_options": {"beta": 1}}, "no option beta; it takes c, rescale"),
        ({"align_gradients": "cagrad", "alignment_options": "c=1"}, "--alignment_options is not JSON"),
        (
            {"align_gradients": "mgda", "alignment_options": {"epsilon": -1}},
            "wrong options .* epsilon must be positive",
        ),
        (
            {"align_gradients": "crmogm(mgda)", "alignment_options": {"beta": 1}},
            "crmogm takes alpha, .* mgda takes eps",
        ),
        ({"remove_unused_columns": True}, "would remove the views"),
        ({"early_stopping_patience": 0}, "--early_stopping_patience must be 1 or more, got 0"),
        ({"average_best_checkpoints": 0}, "--average_best_checkpoints must be 1 or more, got 0"),
        (
            {"average_best_checkpoints": 2, "metric_for_best_model": "eer", "eval_strategy": "epoch"},
            "or use --save_strategy epoch or steps",
        ),
        ({"early_stopping_patience": 2, "eval_strategy": "epoch"}, "needs --metric_for_best_model"),
        ({"metric_for_best_model": "meer"}, "meer: it is not known whether more of it is better; also pass --greater"),
        (
            {"metric_for_best_model": "la_eer_threshold", "greater_is_better": False},
            "--metric_for_best_model la_eer_threshold does not measure how good a model is",
        ),
        ({"average_best_checkpoints": 2, "metric_for_best_model": "eer"}, "or use --eval_strategy epoch or steps"),
    ],
)
def test_errors(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_arguments(tmp_path, **options)


OTHER_METRICS = {"f1_macro": True, "min_cllr": False, "a_dcf": False, "spoof_acceptance_rate": False, "loss": False}


@pytest.mark.parametrize("prefix", ["", "eval_", "la_", "eval_2021_df_"])
def test_the_direction_of_every_metric(tmp_path, prefix):
    tandem = tandem_metric(AsvErrorRates(0.01, 0.01, 0.1))
    metrics = [*METRICS.values(), *detection_cost_metrics(), *decision_metrics(0.0), tandem]
    directions = {metric.name: metric.higher_is_better for metric in metrics} | OTHER_METRICS
    for name, direction in directions.items():
        arguments = make_arguments(tmp_path, metric_for_best_model=prefix + name)
        assert arguments.greater_is_better is direction, name
        assert make_arguments(tmp_path, metric_for_best_model=prefix + name, greater_is_better=True).greater_is_better


def test_names_in_any_case(tmp_path):
    assert make_arguments(tmp_path, align_gradients="PCGrad").align_gradients == "pcgrad"
    assert make_arguments(tmp_path, align_gradients="CR-MOGM(GradVac)").align_gradients == "crmogm(gradvac)"


def test_options_of_smoothed_methods():
    words = ("--align_gradients", "crmogm(gradvac)", "--alignment_options", '{"alpha": 0.4, "beta": 0.1}')
    method = parse(*words).make_method()
    assert (method.alpha, method.method.beta) == (0.4, 0.1)


def test_fsdp_from_a_saved_command_line(tmp_path):
    assert make_arguments(tmp_path, fsdp="True").fsdp is True


@pytest.mark.parametrize("option", ["bf16", "bf16_full_eval"])
def test_bf16_on_the_cpu_without_an_accelerator(tmp_path, monkeypatch, option):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    arguments = GradientAlignmentArguments(str(tmp_path), **{option: True})
    assert arguments.use_cpu
    assert arguments.device.type == "cpu"
    assert not GradientAlignmentArguments(str(tmp_path)).use_cpu


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_precision_that_accelerate_launch_sets_is_recorded(tmp_path, monkeypatch, precision):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    arguments = make_arguments(tmp_path)
    assert (arguments.bf16, arguments.fp16) == (precision == "bf16", precision == "fp16")
    assert arguments.mixed_precision == precision

import pytest
from toy import make_arguments
from transformers import HfArgumentParser

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
            "needs --save_strategy",
        ),
        ({"early_stopping_patience": 2}, "needs --metric_for_best_model"),
        ({"average_best_checkpoints": 2, "metric_for_best_model": "eer"}, "needs --eval_strategy"),
    ],
)
def test_errors(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_arguments(tmp_path, **options)


@pytest.mark.parametrize(("metric", "greater"), [("eer", False), ("eval_eer", False), ("loss", False), ("f1", True)])
def test_less_error_is_better(tmp_path, metric, greater):
    arguments = make_arguments(tmp_path, metric_for_best_model=metric, load_best_model_at_end=False)
    assert arguments.greater_is_better is greater


def test_names_in_any_case(tmp_path):
    assert make_arguments(tmp_path, align_gradients="PCGrad").align_gradients == "pcgrad"
    assert make_arguments(tmp_path, align_gradients="CR-MOGM(GradVac)").align_gradients == "crmogm(gradvac)"


def test_options_of_smoothed_methods():
    words = ("--align_gradients", "crmogm(gradvac)", "--alignment_options", '{"alpha": 0.4, "beta": 0.1}')
    method = parse(*words).make_method()
    assert (method.alpha, method.method.beta) == (0.4, 0.1)


def test_fsdp_as_a_kept_command_line_says_it(tmp_path):
    assert make_arguments(tmp_path, fsdp="True").fsdp is True


@pytest.mark.parametrize("option", ["bf16", "bf16_full_eval"])
def test_bf16_is_for_the_cpu_where_there_is_no_accelerator(tmp_path, monkeypatch, option):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    arguments = GradientAlignmentArguments(str(tmp_path), **{option: True})
    assert arguments.use_cpu
    assert arguments.device.type == "cpu"
    assert not GradientAlignmentArguments(str(tmp_path)).use_cpu

"""Separate learning rates for the head and for each transformer layer."""

from typing import Any

from torch.nn import Parameter
from torch.optim import Optimizer

from hf_gradalign.models.encoder_layers import encoder_depths, encoder_of, transformer_layers
from hf_gradalign.training.setup_checks import check_rates


def uses_split_rates(args: Any) -> bool:
    """Return whether parameters have different learning rates."""
    return args.head_learning_rate is not None or args.layerwise_lr_decay is not None


def check_split_rates(trainer: Any) -> None:
    """Check that `head_learning_rate` and `layerwise_lr_decay` have an effect on a `Trainer`'s model.

    Raises:
        ValueError: If one of them would have none.
    """
    if not uses_split_rates(trainer.args):
        return
    check_rates(trainer.args)
    if trainer.optimizer is not None:
        raise ValueError(
            "--head_learning_rate and --layerwise_lr_decay have no effect on an optimizer that you create: put the "
            "rates into its parameter groups"
        )
    scales = layer_scales(trainer.model, trainer.args.layerwise_lr_decay)
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    of_head = [parameter for parameter in trained if parameter not in scales]
    if trainer.args.head_learning_rate is not None:
        if not of_head:
            raise ValueError(
                f"--head_learning_rate: {_class_name(trainer.model)} has no trainable weights outside its encoder; "
                "remove it"
            )
        if len(of_head) == len(trained):
            raise ValueError(
                "--head_learning_rate: only the head is trained, because the encoder is frozen; set its rate with "
                "--learning_rate"
            )
    decay = trainer.args.layerwise_lr_decay
    if decay not in (None, 1) and all(scales.get(parameter, 1) == 1 for parameter in trained):
        raise ValueError(
            f"--layerwise_lr_decay {decay} lowers the rates below the last layer, but everything there is frozen; "
            "remove it"
        )


def layer_scales(model: Any, decay: float | None) -> dict[Parameter, float]:
    """Return the factor of the learning rate for each parameter of a model's encoder; those of the head are missing.

    Args:
        model: The model.
        decay: Factor from each of the L transformer layers to the one below. Layer l from 1 to L gets decay^(L - l),
            everything before the layers gets decay^L, and everything after them gets 1.

    Raises:
        ValueError: If the model has no encoder or, with `decay`, no transformer layers.
    """
    encoder = encoder_of(model)
    if encoder is None:
        option = "--head_learning_rate" if decay is None else "--layerwise_lr_decay"
        raise ValueError(
            f"{option}: {_class_name(model)} has no encoder apart from its head (base_model_prefix); remove it"
        )
    if decay is None:
        return dict.fromkeys(encoder.parameters(), 1.0)
    layers = transformer_layers(encoder)
    if layers is None:
        raise ValueError(f"--layerwise_lr_decay: {_class_name(encoder)} has no transformer layers; remove it")
    return {
        parameter: decay ** max(len(layers) - depth, 0) for parameter, depth in encoder_depths(encoder, layers).items()
    }


def split_parameter_groups(optimizer: Optimizer, model: Any, args: Any) -> None:
    """Split the parameter groups of a new optimizer by learning rate.

    The groups keep their other settings. Schedules multiply the rate of each group. The groups of `learning_rate` come
    first, because the `Trainer` logs the rate of the first one.
    """
    scales = layer_scales(model, args.layerwise_lr_decay)
    groups = []
    for group in optimizer.param_groups:
        by_rate: dict[float, list[Parameter]] = {}
        head_rate = group["lr"] if args.head_learning_rate is None else args.head_learning_rate
        for parameter in group["params"]:
            rate = group["lr"] * scales[parameter] if parameter in scales else head_rate
            by_rate.setdefault(rate, []).append(parameter)
        order = sorted(by_rate, key=lambda rate, base=group["lr"]: (rate != base, -rate))
        groups += [{**group, "params": by_rate[rate], "lr": rate} for rate in order]
    optimizer.param_groups[:] = groups


def _class_name(model: Any) -> str:
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return type(model).__name__

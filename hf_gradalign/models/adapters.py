"""Loads classifiers: complete models, published checkpoints, or PEFT adapters with their base model."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification, PretrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from hf_gradalign import conversion
from hf_gradalign.models.configuration_spoof_detector import SpoofDetectorConfig
from hf_gradalign.models.feature_encoders import encoder_alone
from hf_gradalign.models.model_files import WEIGHTS, loading_model
from hf_gradalign.models.modeling_spoof_detector import SpoofDetectorForAudioClassification
from hf_gradalign.models.score_calibration import drop_calibration

_ADAPTER_CONFIG = "adapter_config.json"


def load_config(name: str, hub_options: Mapping[str, Any]) -> PretrainedConfig:
    """Load a model's configuration. For adapters, this is the whole model's, or the base model's without one.

    Raises:
        OSError: If there is no such model, or one of its files is broken.
        ValueError: If transformers does not know the model.
    """
    name, hub_options = conversion.model_folder(name, hub_options)
    base = base_of_adapter(name, hub_options)
    if base is not None and not _file_exists(name, CONFIG_NAME, hub_options):
        return load_config(*base)
    with loading_model(name, hub_options):
        return AutoConfig.from_pretrained(name, **hub_options)


def load_classifier(name: str, hub_options: Mapping[str, Any], **options: Any) -> tuple[PreTrainedModel, set[str]]:
    """Load a classifier in float32. Adapters are merged into their base model.

    Args:
        name: A folder, a Hub id or a published checkpoint.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`; `conversion_options` of published
            checkpoints.
        options: Options of `AutoModelForAudioClassification.from_pretrained`.

    Returns:
        The model, and the names of its randomly initialized weights: missing or, if `options` allow it, of different
        shapes.

    Raises:
        OSError: If there is no such model, or one of its files is broken.
        ValueError: If transformers does not know the model, or a trained classifier has more layers than its
            configuration says.
    """
    given_name, has_options = name, bool(hub_options.get("conversion_options"))
    name, hub_options = conversion.model_folder(name, hub_options)
    base = base_of_adapter(name, hub_options)
    if base is not None:
        with loading_model(name, hub_options):
            _require_peft(name)
        if "config" not in options and _file_exists(name, CONFIG_NAME, hub_options):
            # Labels and head come from the whole model's configuration. The adapters have the weights that the base
            # lacks.
            options |= {"config": load_config(name, hub_options), "ignore_mismatched_sizes": True}
        model, absent = _load_base(*base, options)
        with loading_model(name, hub_options):
            model, given = _merge_adapters(model, name, hub_options)
        if not _file_exists(name, CONFIG_NAME, hub_options):
            drop_calibration(model.config)  # of the base model, whose scores the adapters change
        return model, absent - given
    with loading_model(name, hub_options):
        model, info = AutoModelForAudioClassification.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **options, **hub_options
        )
    absent = {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}
    # The encoder of a model without this head may have been shortened on purpose.
    if all(key.startswith(f"{model.base_model_prefix}.") for key in info["missing_keys"]):
        _refuse_excess(name, model, info["unexpected_keys"])
    if name != given_name and not has_options:
        # Adapters that are trained on it find it again, also on other machines. With options, they would find another
        # model, so they name this model's folder.
        model.name_or_path = model.config.name_or_path = given_name
    return model, absent


def _refuse_excess(name: str, model: PreTrainedModel, unused: Iterable[str]) -> None:
    """Raise ValueError for a trained classifier with more layers than its configuration says."""
    modules = {module for module, _ in model.named_modules()}
    excess = sorted(key for key in unused if _is_in_missing_layer(key, modules))
    if excess:
        raise ValueError(
            f"{name} has {len(excess)} weights of layers that its configuration leaves out ({_list_names(excess)}): "
            f"without them, it would be a different model. Correct the number of layers in its {CONFIG_NAME} or in the "
            "options, or download the model again"
        )


def _is_in_missing_layer(key: str, modules: Collection[str]) -> bool:
    """Return whether a weight is in a numbered layer that the model's list lacks. Other keys may be unused."""
    parts = key.split(".")
    return any(
        part.isdecimal() and ".".join(parts[:place]) in modules and ".".join(parts[: place + 1]) not in modules
        for place, part in enumerate(parts)
    )


def _list_names(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def base_of_adapter(name: str, hub_options: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the name of an adapter's base model and the options to load it; None if `name` is a complete model.

    Raises:
        OSError: If the adapter names no base, a folder that does not exist, or a relative path that leads to different
            folders from the adapter and from the working folder.
    """
    folder = Path(name)
    if folder.exists():
        file = folder / _ADAPTER_CONFIG
    else:
        with loading_model(name, hub_options):
            file = find_adapter_config_file(name, **_download_options(hub_options))
    if file is None or not Path(file).is_file() or any(_file_exists(name, weights, hub_options) for weights in WEIGHTS):
        return None
    with loading_model(name, hub_options):
        settings = json.loads(Path(file).read_text(encoding="utf-8"))
    base = settings.get("base_model_name_or_path")
    run = folder.resolve().parent
    merged = f"; {run} has the merged model" if (run / CONFIG_NAME).is_file() else ""
    if not base:
        advice = merged or (
            ". If you have the base model, save PeftModel.from_pretrained(base, FOLDER).merge_and_unload()"
        )
        raise OSError(f"{name} contains PEFT adapters and does not name their base model{advice}")
    options = dict(hub_options) | {"revision": settings.get("revision")}
    if options["revision"] is None:
        del options["revision"]
    relative = folder / base
    if relative.exists():
        if Path(base).exists() and not relative.samefile(base):
            raise OSError(
                f"{name} contains PEFT adapters for the model {base}, which can be {relative.resolve()} or "
                f"{Path(base).resolve()}: write its absolute path as base_model_name_or_path in {file}"
            )
        return str(relative), options
    if Path(base).is_absolute() and not Path(base).exists():
        raise OSError(f"{name} contains PEFT adapters for the model {base}, which does not exist{merged}")
    return base, options


def _load_base(
    name: str, hub_options: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[PreTrainedModel, set[str]]:
    """Load the base model of adapters, which may be an encoder. The adapters then come with one of our heads."""
    config = options.get("config")
    if not isinstance(config, SpoofDetectorConfig) or isinstance(load_config(name, hub_options), SpoofDetectorConfig):
        return load_classifier(name, hub_options, **options)
    with loading_model(name, hub_options):
        whole, info = AutoModel.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, config=config.backbone_config, **hub_options
        )
    encoder, absent_keys = encoder_alone(whole), info["missing_keys"]
    if encoder is not whole:
        absent_keys = [key.removeprefix("encoder.") for key in absent_keys if key.startswith("encoder.")]
    for module in encoder.modules():
        cast(Any, module)._is_hf_initialized = True  # or the detector would initialize it again
    model = SpoofDetectorForAudioClassification(config, encoder).eval()
    of_encoder = {f"{model.base_model_prefix}.{key}" for key in encoder.state_dict()}
    absent = {f"{model.base_model_prefix}.{key}" for key in absent_keys}
    return model, absent | (set(model.state_dict()) - of_encoder)


def _merge_adapters(
    model: PreTrainedModel, name: str, hub_options: Mapping[str, Any]
) -> tuple[PreTrainedModel, set[str]]:
    """Return the model with the adapters merged, and the names of complete weights among the adapters."""
    from peft import PeftModel
    from peft.utils import load_peft_weights

    where = {key: hub_options[key] for key in ("revision", "token", "cache_dir") if hub_options.get(key) is not None}
    given = {key.removeprefix("base_model.model.") for key in load_peft_weights(name, device="cpu", **where)}
    adapted = PeftModel.from_pretrained(model, name, **where)
    # Load them again, because the first call does not report unused weights.
    found = adapted.load_adapter(name, "default", **where)
    # Check only LoRA weights. Other methods share weights between layers, and PEFT saves biases of saved modules twice.
    absent, excess = ([key for key in keys if ".lora_" in key] for keys in (found.missing_keys, found.unexpected_keys))
    if mismatched := sorted([*absent, *excess]):
        raise ValueError(
            f"the adapters do not fit their base model: they lack {len(absent)} weights, and it has no place for "
            f"{len(excess)} of theirs ({_list_names(mismatched)}). Is this the base that they were trained on?"
        )
    return adapted.merge_and_unload(), given


def _require_peft(name: str) -> None:
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{name} contains PEFT adapters, and PEFT is not installed: pip install peft") from error


def _file_exists(name: str, file: str, hub_options: Mapping[str, Any]) -> bool:
    if Path(name).exists():
        return Path(name, file).is_file()
    with loading_model(name, hub_options):
        return (
            cached_file(name, file, _raise_exceptions_for_missing_entries=False, **_download_options(hub_options))
            is not None
        )


def _download_options(hub_options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in hub_options.items() if key != "trust_remote_code"}

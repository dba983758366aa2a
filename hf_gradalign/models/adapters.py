"""Load classifiers from a folder or the Hub: complete models, or PEFT adapters with their base model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForAudioClassification, PretrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from hf_gradalign.models.model_files import loading_model

_ADAPTER_CONFIG = "adapter_config.json"


def load_config(name: str, hub_options: Mapping[str, Any]) -> PretrainedConfig:
    """Load the configuration of a model, or of an adapter's base model.

    Raises:
        OSError: If there is no such model, or one of its files is broken.
        ValueError: If transformers does not know the model.
    """
    base = base_of_adapter(name, hub_options)
    if base is not None:
        return load_config(base, _of_base(hub_options))
    with loading_model(name, hub_options):
        return AutoConfig.from_pretrained(name, **hub_options)


def load_classifier(name: str, hub_options: Mapping[str, Any], **options: Any) -> tuple[PreTrainedModel, set[str]]:
    """Load a classifier in float32. Adapters are merged into their base model.

    Args:
        name: A folder or a Hub id.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`.
        options: Options of `AutoModelForAudioClassification.from_pretrained`.

    Returns:
        The model, and the names of its randomly initialized weights: missing or, if `options` allow it, of different
        shapes.

    Raises:
        OSError: If there is no such model, or one of its files is broken.
        ValueError: If transformers does not know the model.
    """
    base = base_of_adapter(name, hub_options)
    if base is not None:
        model, absent = load_classifier(base, _of_base(hub_options), **options)
        with loading_model(name, hub_options):
            model, given = _merged(model, name, hub_options)
        return model, absent - given
    with loading_model(name, hub_options):
        model, info = AutoModelForAudioClassification.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **options, **hub_options
        )
    return model, {*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])}


def base_of_adapter(name: str, hub_options: Mapping[str, Any]) -> str | None:
    """Return the name of an adapter's base model; None if `name` is a complete model.

    Raises:
        OSError: If the adapter names no base, or a folder that does not exist.
    """
    folder = Path(name)
    if folder.exists():
        file = None if (folder / CONFIG_NAME).exists() else folder / _ADAPTER_CONFIG
    else:
        where = {key: value for key, value in hub_options.items() if key != "trust_remote_code"}
        with loading_model(name, hub_options):
            whole = cached_file(name, CONFIG_NAME, _raise_exceptions_for_missing_entries=False, **where)
            file = None if whole else find_adapter_config_file(name, **where)
    if file is None or not Path(file).is_file():
        return None
    with loading_model(name, hub_options):
        base = json.loads(Path(file).read_text(encoding="utf-8")).get("base_model_name_or_path")
    run = folder.resolve().parent
    merged = f"; {run} has the merged model" if (run / CONFIG_NAME).is_file() else ""
    if not base:
        advice = merged or (
            ". If you have the base model, save PeftModel.from_pretrained(base, FOLDER).merge_and_unload()"
        )
        raise OSError(f"{name} contains PEFT adapters and does not name their base model{advice}")
    relative = folder / base
    if not Path(base).exists() and relative.exists():
        return str(relative)
    if Path(base).is_absolute() and not Path(base).exists():
        raise OSError(f"{name} contains PEFT adapters for the model {base}, which does not exist{merged}")
    return base


def _merged(model: PreTrainedModel, name: str, hub_options: Mapping[str, Any]) -> tuple[PreTrainedModel, set[str]]:
    """The model with the adapters merged, and the names of complete weights among the adapters."""
    try:
        from peft import PeftModel
        from peft.utils import load_peft_weights
    except ImportError as error:
        raise ImportError(f"{name} contains PEFT adapters, and PEFT is not installed: pip install peft") from error
    where = {key: hub_options[key] for key in ("revision", "token", "cache_dir") if hub_options.get(key) is not None}
    given = {key.removeprefix("base_model.model.") for key in load_peft_weights(name, device="cpu", **where)}
    return PeftModel.from_pretrained(model, name, **where).merge_and_unload(), given


def _of_base(hub_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without `revision`, which belongs to the adapters."""
    return {key: value for key, value in hub_options.items() if key != "revision"}

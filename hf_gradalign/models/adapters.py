"""Classifiers as they lie in a folder or on the Hub: whole, or as adapters of PEFT whose base model is found."""

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
    """The configuration of a model, or of an adapter's base model.

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
    """A classifier in float32; adapters are merged into their base model.

    Args:
        name: A folder or a Hub id.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`.
        options: Of `AutoModelForAudioClassification.from_pretrained`.

    Returns:
        The model, and the names of its weights that are random: missing, or (where `options` let them be) of other
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
    """The base model that an adapter names; None where `name` is that of a whole model.

    Raises:
        OSError: If the adapter names no base, or a folder that is not there.
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
            ". Where the base is at hand, PeftModel.from_pretrained(base, FOLDER).merge_and_unload() is a model to save"
        )
        raise OSError(f"{name} holds adapters of PEFT and does not say to which model{advice}")
    beside = folder / base
    if not Path(base).exists() and beside.exists():
        return str(beside)
    if Path(base).is_absolute() and not Path(base).exists():
        raise OSError(f"{name} holds adapters of PEFT to the model {base}, which is not there{merged}")
    return base


def _merged(model: PreTrainedModel, name: str, hub_options: Mapping[str, Any]) -> tuple[PreTrainedModel, set[str]]:
    """The model with the adapters in it, and the names of the weights that came whole with them."""
    try:
        from peft import PeftModel
        from peft.utils import load_peft_weights
    except ImportError as error:
        raise ImportError(f"{name} holds adapters of PEFT, which is not installed: pip install peft") from error
    where = {key: hub_options[key] for key in ("revision", "token", "cache_dir") if hub_options.get(key) is not None}
    given = {key.removeprefix("base_model.model.") for key in load_peft_weights(name, device="cpu", **where)}
    return PeftModel.from_pretrained(model, name, **where).merge_and_unload(), given


def _of_base(hub_options: Mapping[str, Any]) -> dict[str, Any]:
    """The options but for `revision`, which is the adapters'."""
    return {key: value for key, value in hub_options.items() if key != "revision"}

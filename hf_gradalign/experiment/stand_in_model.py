"""What to build a model of where the Hub is out of reach, to try a run's settings on."""

from typing import Any

from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers import AutoConfig, PretrainedConfig

from hf_gradalign.models.configuration_spoof_detector import XLS_R_300M

_BUILT_IN: dict[str, dict[str, Any]] = {"facebook/wav2vec2-xls-r-300m": XLS_R_300M}


def is_out_of_reach(error: BaseException) -> bool:
    """Whether an error means that the Hub was not reached, rather than that it has no such model."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def stand_in_config(name: str, **hub_options: Any) -> PretrainedConfig | None:
    """The configuration of a model whose weights are not to be had: the Hub's from the cache, or a built-in one.

    Args:
        name: Hub id.
        hub_options: `revision`, `cache_dir`, `trust_remote_code`.

    Returns:
        The configuration; None where neither is there.
    """
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True, **hub_options)
    except OSError:
        fields = _BUILT_IN.get(name)
    if fields is None:
        return None
    fields = dict(fields)
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


__all__ = ["is_out_of_reach", "stand_in_config"]

"""Classes that describe the layout of a published detector's checkpoints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from hf_gradalign.conversion.reading import KeyNames
from hf_gradalign.models import WINDOW_SAMPLES

State = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Published:
    """Published facts about a detector beyond the shapes of its weights.

    Attributes:
        name: Name of the detector.
        source: Repository of its authors on GitHub; None if several detectors have this layout.
        license: License of the published weights; None if none is stated.
        head_options: Published values of the head's options that shapes do not determine.
        n_samples: Number of samples of a clip that is scored; None for whole clips.
        normalization: Whether waveforms are normalized (with an epsilon of 1e-5) inside the published network, outside
            of it by its data loader, or not at all.
    """

    name: str
    source: str | None = None
    license: str | None = None
    head_options: Mapping[str, Any] = field(default_factory=dict)
    n_samples: int | None = WINDOW_SAMPLES
    normalization: Literal["inside", "outside"] | None = None


@dataclass(frozen=True, kw_only=True)
class HeadLayout:
    """Layout of a published head.

    Attributes:
        keys: Names in both layouts: theirs without prefix, ours within the head.
        head: Name of our head.
        signature: A key that no other head has, or none without the keys in `without`.
        without: Keys that other heads have, and this one does not.
        options: Reads the head's options from the shapes.
        classifier: Published name of the layer that computes the logits.
        published: Function that returns the published facts, given the head's entries, the fields of the encoder's
            configuration and the name of the layer merging, if any.
        encoders: Encoders (`model_type`) that the published code uses with this head; `sinc` for filters of the
            waveform, which have no weights.
        encoder_prefix: The published prefix of the encoder's keys.
        has_single_output: Whether a published detector has a single output, which is higher for bona fide.
    """

    keys: KeyNames
    head: str
    signature: str
    without: tuple[str, ...] = ()
    options: Callable[[State], dict[str, Any]]
    classifier: str
    published: Callable[[State, Mapping[str, Any], str | None], Published]
    encoders: tuple[str, ...] = ("wav2vec2",)
    encoder_prefix: str = "ssl_model.model."
    has_single_output: bool = False

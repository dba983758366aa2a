"""Example recordings for the page: clips of the bundled demo corpus, and one that changes in the middle."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from hf_gradalign.data import load_corpus
from hf_gradalign.data.decoding import decode_audio

_RATE = 16_000
_SPLIT = "validation"
_GENUINE, _FAKE = "validation_0022", "validation_0024"
_RECIPES = {
    "Genuine speech": (_GENUINE,),
    "Fake speech": (_FAKE,),
    "Genuine, then fake": (_GENUINE, _FAKE),
}
CREDITS = (
    "The examples are from the demo corpus of hf_gradalign: Italian prompts that Carlo Flora spoke for Asterisk "
    "(Digium, CC BY 3.0), as recorded, and resynthesized with the WORLD vocoder."
)


@dataclass(frozen=True)
class Example:
    """A recording to try.

    Attributes:
        label: A short description.
        path: Its WAV file.
    """

    label: str
    path: str


def write_examples(folder: str | Path) -> Sequence[Example]:
    """Write the examples as WAV files, which every browser plays.

    Args:
        folder: The folder to write to. It must exist.

    Raises:
        OSError: If they cannot be written there.
    """
    clips = load_corpus(splits=[_SPLIT])[_SPLIT]
    by_id = dict(zip(clips["utterance_id"], range(len(clips)), strict=True))
    examples = []
    for label, parts in _RECIPES.items():
        samples = [decode_audio(clips[by_id[part]]["audio"], _RATE) for part in parts]
        path = Path(folder, f"{label.lower().replace(', ', '_').replace(' ', '_')}.wav")
        content = io.BytesIO()
        soundfile.write(content, np.concatenate(samples), _RATE, subtype="PCM_16", format="WAV")
        try:
            path.write_bytes(content.getbuffer())  # unlike libsndfile, it says why it fails
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        examples.append(Example(label, str(path)))
    return examples

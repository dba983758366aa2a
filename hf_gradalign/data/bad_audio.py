"""What to do about clips that cannot be decoded, when they are met in training."""

import logging
from typing import Literal, get_args

from hf_gradalign.data.decoding import AudioDecodingError

logger = logging.getLogger(__name__)

OnBadAudio = Literal["stop", "skip"]


def check_on_bad_audio(choice: str) -> None:
    """Raise ValueError unless `choice` is one of `OnBadAudio`."""
    if choice not in get_args(OnBadAudio):
        raise ValueError(f"on_bad_audio must be one of {', '.join(get_args(OnBadAudio))}, not {choice!r}.")


class BadAudioReport:
    """Raises for a bad clip, or warns of it, once.

    Args:
        on_bad_audio: `stop` or `skip`.

    Raises:
        ValueError: if it is neither.
    """

    def __init__(self, on_bad_audio: OnBadAudio) -> None:
        check_on_bad_audio(on_bad_audio)
        self._skips = on_bad_audio == "skip"
        self._known: set[str] = set()

    def bad(self, error: AudioDecodingError) -> None:
        """Tell of a clip.

        Raises:
            AudioDecodingError: `error`, unless bad clips are skipped.
        """
        if not self._skips:
            raise error
        message = str(error)
        if message not in self._known:
            self._known.add(message)
            logger.warning("Left out in training: %s", message)

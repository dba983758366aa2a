"""The error that all of corpus loading raises."""


class CorpusError(ValueError):
    """A corpus that cannot be used as it is; the message says what was found and which option mends it."""

"""The error that all reading of score and key files raises."""


class ScoreFileError(ValueError):
    """A score or key file that cannot be used as it is; the message says what was found and what to do."""

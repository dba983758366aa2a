"""What can be wrong with a study."""


class StudyError(ValueError):
    """A study's file, or what its folder holds, cannot be used; the message says what to do about it."""


__all__ = ["StudyError"]

"""What is raised for a clip that cannot be decoded."""


class AudioDecodingError(ValueError):
    """A clip that cannot be decoded.

    Args:
        reason: what is wrong with it.
        name: the clip's name, put before the reason.

    Attributes:
        reason: as given.
    """

    def __init__(self, reason: str, name: str | None = None) -> None:
        # One argument must do: that is how an error comes out of a DataLoader worker.
        super().__init__(f"Cannot decode {name}: {reason}" if name else reason)
        self.reason = reason

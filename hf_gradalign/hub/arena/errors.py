class ArenaError(ValueError):
    """A result that the Arena would not take; the message says why and what to do."""

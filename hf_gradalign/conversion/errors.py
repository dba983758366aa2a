"""What goes wrong in a conversion."""


class ConversionError(ValueError):
    """The checkpoint cannot be converted; the message says why and what to do."""

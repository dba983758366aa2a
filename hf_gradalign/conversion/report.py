"""What a conversion did, for people."""

from dataclasses import dataclass, field

from hf_gradalign.plain_text import plain_text


@dataclass
class ConversionReport:
    """What became of a checkpoint's entries.

    Attributes:
        head: The head's name.
        converted: Number of entries that were renamed into the model.
        n_parameters: Number of values in them, counters aside.
        ignored: Entries that only pre-training needs, by their published names.
        filled_in: What the checkpoint lacks and can only have one value: counters (0), and the projection between
            convolutions and transformer where fairseq has none (the identity).
        casted: Types that were cast to float32, with the number of entries.
        settings: What no shape tells, as it was taken.
        prefix: What was taken off the keys.
        beside: Entries without that prefix, which are left out.
    """

    head: str
    converted: int
    n_parameters: int
    ignored: list[str] = field(default_factory=list)
    filled_in: list[str] = field(default_factory=list)
    casted: dict[str, int] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    prefix: str = ""
    beside: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"head                 {self.head}",
            f"entries converted    {self.converted} ({self.n_parameters / 1e6:.4f}M values)",
            f"entries ignored      {len(self.ignored)}{_listed(self.ignored)}",
        ]
        if self.prefix:
            lines.append(f"prefix taken off     {plain_text(self.prefix)}")
        if self.beside:
            lines.append(f"not of the detector  {len(self.beside)}{_listed(self.beside)}")
        if self.filled_in:
            lines.append(f"entries filled in    {len(self.filled_in)}{_listed(self.filled_in)}")
        if self.casted:
            lines.append("cast to float32      " + ", ".join(f"{n} of {kind}" for kind, n in self.casted.items()))
        lines.append("taken as given       " + ", ".join(f"{name} {value}" for name, value in self.settings.items()))
        return "\n".join(lines)


def _listed(names: list[str]) -> str:
    return f": {plain_text(', '.join(names))}" if names else ""

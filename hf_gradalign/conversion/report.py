"""Report of a conversion: what was done with each entry, and what was assumed."""

from dataclasses import dataclass, field

from hf_gradalign.conversion.layouts import Published
from hf_gradalign.utils.plain_text import plain_text


@dataclass
class ConversionReport:
    """Report of what was done with a checkpoint's entries.

    Attributes:
        head: Name of the head's layout.
        published: What is published about the detector with this layout.
        converted: Number of entries that were converted.
        n_parameters: Number of values in them, without counters.
        ignored: Entries that are only used in pre-training, by their published names.
        filled_in: Missing entries that can only have one value: counters (0), and the projection between convolutions
            and transformer if fairseq has none (the identity).
        casted: Types that were cast to float32, with the number of entries.
        assumed: Settings that neither the shapes nor the caller determine, with their published values.
        given: Settings that the caller determined.
        prefix: Prefix that was removed from the keys.
        beside: Entries without that prefix, which are left out.
    """

    head: str
    published: Published
    converted: int
    n_parameters: int
    ignored: list[str] = field(default_factory=list)
    filled_in: list[str] = field(default_factory=list)
    casted: dict[str, int] = field(default_factory=dict)
    assumed: dict[str, object] = field(default_factory=dict)
    given: dict[str, object] = field(default_factory=dict)
    prefix: str = ""
    beside: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"layout               {self.published.name}",
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
        for title, settings in (("given", self.given), ("assumed", self.assumed)):
            if settings:
                lines.append(f"{title:<21}" + ", ".join(f"{name} {value}" for name, value in settings.items()))
        return "\n".join(lines)


def _listed(names: list[str]) -> str:
    return f": {plain_text(', '.join(names))}" if names else ""

"""The layouts of published checkpoints by name, and the detection of a checkpoint's layout."""

from hf_gradalign.conversion.layouts import aasist, aasist_raw, conformer_tcm, linear, mamba, nes2net, sls
from hf_gradalign.conversion.layouts.base import HeadLayout, Published, State
from hf_gradalign.conversion.reading import ConversionError
from hf_gradalign.utils.plain_text import plain_text

__all__ = ["HEAD_LAYOUTS", "HeadLayout", "Published", "State", "detect_head", "layout_name"]

HEAD_LAYOUTS: dict[str, HeadLayout] = {
    "aasist": aasist.LAYOUT,
    "aasist_raw": aasist_raw.LAYOUT,
    "conformer_tcm": conformer_tcm.LAYOUT,
    "linear": linear.LAYOUT,
    "mamba": mamba.LAYOUT,
    "nes2net": nes2net.LAYOUT,
    "sls": sls.LAYOUT,
}


def layout_name(head: str, encoder: str) -> str | None:
    """Return the layout in which a head with an encoder (`model_type`) is published; None if there is none."""
    matches = (name for name, layout in HEAD_LAYOUTS.items() if layout.head == head and encoder in layout.encoders)
    return next(matches, None)


def detect_head(state: State, head: str = "auto", prefix: str | None = None) -> tuple[str, str]:
    """Detect the head in a state dict, and the prefix that a training framework added to the keys.

    Lightning modules have the detector as an attribute (`model.`), and so do many wrappers, which may be nested.

    Args:
        state: A state dict.
        head: The head to look for; "auto" for any.
        prefix: The prefix, if there are several detectors.

    Returns:
        Name of the head, and the prefix, which is often empty.

    Raises:
        ConversionError: If there is no known head, or more than one.
    """
    layouts = HEAD_LAYOUTS if head == "auto" else {head: HEAD_LAYOUTS[head]}
    matches = [
        (name, key.removesuffix(layout.signature))
        for name, layout in layouts.items()
        for key in state
        if (prefix is None and key.endswith(f".{layout.signature}")) or key == f"{prefix or ''}{layout.signature}"
        if not any(key.removesuffix(layout.signature) + other in state for other in layout.without)
    ]
    if len(matches) == 1:
        return matches[0]
    if not matches and head != "auto":
        return head, prefix or ""  # missing keys are listed later
    if matches:
        prefixes = ", ".join(f"{plain_text(prefix) or '(none)'} ({name})" for name, prefix in matches)
        raise ConversionError(
            f"the checkpoint has several detectors, whose keys start with {prefixes}: choose one with --prefix, e.g. "
            f"--prefix {plain_text(matches[-1][1])}"
        )
    signatures = ", ".join(f"{layout.signature} ({name})" for name, layout in HEAD_LAYOUTS.items())
    keys = ", ".join(plain_text(key) for key in list(state)[:3])
    raise ConversionError(
        f"the checkpoint has no known head; looked for {signatures}, with and without a prefix. Its first keys are "
        f"{keys}"
    )

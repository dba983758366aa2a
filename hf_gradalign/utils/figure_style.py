"""Style of all figures, and a function to save them (matplotlib, the extra `plots`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gradalign.utils.files import replace_atomically

FORMATS = ("png", "svg")
# The Okabe-Ito colors, which are safe for color-blind readers.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
BLUE, VERMILION, GRAY = COLORS[0], COLORS[1], "#666666"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",  # keep text as text
    "text.parse_math": False,  # names may contain a dollar sign
    "svg.hashsalt": "hf_gradalign",  # the same content gives the same file
}
_DPI = 150


def save_figures(figures: Mapping[str, Any], folder: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Save figures under their names in each format.

    Returns:
        The files.

    Raises:
        ValueError: If matplotlib does not know a format.
    """
    matplotlib = import_matplotlib()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, figure in figures.items():
            for ending in formats:
                path = folder / f"{name}.{ending.lstrip('.')}"
                # Without a date, the same content gives the same file.
                with replace_atomically(path) as draft:
                    figure.savefig(draft, dpi=_DPI, metadata={"Date": None} if path.suffix == ".svg" else None)
                paths.append(path)
    return paths


def import_matplotlib(formats: Sequence[str] = (), *, is_optional: bool = False) -> Any:
    """Import matplotlib before starting work that draws figures.

    Args:
        formats: The formats that figures will be saved in.
        is_optional: Whether the command has `--formats none`, which the message then names.

    Raises:
        ImportError: If matplotlib is not installed; the message says how to install it.
        ValueError: If matplotlib does not support a format.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib, which is not installed: `pip install matplotlib`, or install hf_gradalign with "
            "its extra `plots`" + ("; or draw none, with --formats none" if is_optional else "")
        ) from error
    if formats:
        from matplotlib.backend_bases import FigureCanvasBase

        known = FigureCanvasBase.get_supported_filetypes()
        for name in formats:
            if name.lstrip(".").lower() not in known:
                raise ValueError(f"the format {name!r} is not supported. Supported formats: {', '.join(sorted(known))}")
    return matplotlib

"""Figures of a run's conflict record (matplotlib, the extra `plots`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from transformers.utils import logging

from hf_gradalign.training.conflicts.record import ConflictHistory, Pair
from hf_gradalign.utils.figure_style import BLUE, GRAY, STYLE, VERMILION, import_matplotlib, save_figures
from hf_gradalign.utils.file_locks import hold_output

logger = logging.get_logger(__name__)

FIGURES_DIR = "figures"
OVERVIEW_NAME = "conflicts"
MODULES_NAME = "conflicts_by_module"

PAPER_CONFLICT_RATE = 0.25  # about, arXiv 2509.20682
MAX_COLUMNS = 500  # of the heat map
_MAX_LABELS = 60
_MAX_LABELED = 1e4  # in a larger range of ratios, only powers of ten have labels


def draw_conflicts(
    source: str | Path, output_dir: str | Path | None = None, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Draw a run's conflict record.

    Args:
        source: A run's folder, or the file of a conflict record.
        output_dir: Folder for the figures; by default `figures/` next to the record.
        formats: File formats that matplotlib knows, such as "png", "svg" or "pdf".

    Returns:
        The files: `conflicts.*` with the conflict rate by epoch, a histogram of cosines and the ratio of norms for each
        pair of views; and `conflicts_by_module.*`, a heat map of cosines, if modules were recorded.

    Raises:
        LockHeldError: If another process is drawing figures in the same folder.
        FileNotFoundError: If the path does not exist, or the run has no record.
        ValueError: If the file is not a conflict record, has a single view, or the format is unknown.
        ImportError: If matplotlib is not installed.
    """
    import_matplotlib(formats)
    history = ConflictHistory.read(source)
    if not history.pairs:
        raise ValueError(f"{source} is from a run with a single view ({history.views[0]}), which has no conflicts")
    if output_dir is None:
        output_dir = Path(source, FIGURES_DIR) if Path(source).is_dir() else Path(source).parent / FIGURES_DIR
    return _draw(history, Path(output_dir), formats)


def draw_run_figures(folder: str | Path) -> dict[str, str]:
    """Draw the figures of a run's model card. Failures are only logged, so that the card is still written.

    Args:
        folder: The run's folder.

    Returns:
        Paths of PNG files relative to `folder`, with a caption for each.
    """
    captions = {
        f"{OVERVIEW_NAME}.png": "Conflict rate by epoch, histogram of cosines, and ratio of the gradients' norms",
        f"{MODULES_NAME}.png": "Cosine of the views' gradients by module and update",
    }
    try:
        import_matplotlib()
        history = ConflictHistory.read(folder)
        paths = _draw(history, Path(folder, FIGURES_DIR), ["png"]) if history.pairs else []
    except ImportError as error:
        logger.info(f"The model card has no figures: {error}")
        return {}
    except Exception as error:
        logger.warning(f"The conflict record was not drawn: {error}")
        return {}
    return {f"{FIGURES_DIR}/{path.name}": captions[path.name] for path in paths}


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    try:
        import_matplotlib()
    except ImportError:
        return False
    return True


def draw_overview(history: ConflictHistory) -> Any:
    """Draw conflict rate, histogram of cosines and ratio of norms, one row per pair; return a matplotlib `Figure`."""
    figure = _figure(12, 3.2 * len(history.pairs))
    rows = figure.subplots(len(history.pairs), 3, squeeze=False)
    for (rates, cosines, ratios), pair in zip(rows, history.pairs, strict=True):
        _draw_rates(rates, history, pair)
        _draw_cosines(cosines, history, pair)
        _draw_ratios(ratios, history, pair)
    return figure


def draw_modules(history: ConflictHistory) -> Any:
    """Draw one heat map of cosines, modules by updates, per pair of views; return a matplotlib `Figure`."""
    modules = len(history.modules)
    height = min(1.2 + 0.16 * modules, 11)
    figure = _figure(10, height * len(history.pairs))
    every = -(-modules // _MAX_LABELS)
    axes = figure.subplots(len(history.pairs), 1, squeeze=False)[:, 0]
    for axis, pair in zip(axes, history.pairs, strict=True):
        edges, values = bin_steps(history.steps, history.module_cosines[pair])
        image = axis.pcolormesh(
            edges,
            np.arange(modules + 1) - 0.5,
            np.ma.masked_invalid(values.T),
            cmap="RdBu",  # not red and green, for color-blind readers
            vmin=-1,
            vmax=1,
            rasterized=True,
        )
        axis.set_facecolor("#d9d9d9")  # for modules without a gradient
        axis.set_ylim(modules - 0.5, -0.5)
        axis.set_yticks(range(0, modules, every), history.modules[::every], fontsize=7)
        axis.set_xlabel("update")
        axis.set_title(f"Cosine of the gradients of {_pair_name(pair)}, by module")
        axis.spines[:].set_visible(False)
        figure.colorbar(image, ax=axis, ticks=[-1, -0.5, 0, 0.5, 1], label="cosine (red: conflict)", pad=0.01)
    return figure


def bin_steps(steps: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Average over at most `MAX_COLUMNS` bins of consecutive updates.

    Args:
        steps: Shape (S,), increasing.
        values: Shape (S, M). Non-finite values are left out.

    Returns:
        Edges of the bins, shape (B + 1,), and their means, shape (B, M), NaN for a bin without finite values.
    """
    starts = np.linspace(0, len(steps), min(len(steps), MAX_COLUMNS), endpoint=False).astype(int)
    finite = np.isfinite(values)
    sums = np.add.reduceat(np.where(finite, values, 0), starts)
    counts = np.add.reduceat(finite.astype(int), starts)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return np.append(steps[starts], steps[-1] + 1) - 0.5, means


def _draw(history: ConflictHistory, folder: Path, formats: Sequence[str]) -> list[Path]:
    with hold_output(folder / OVERVIEW_NAME), import_matplotlib().rc_context(STYLE):
        figures = {OVERVIEW_NAME: draw_overview(history)}
        if history.modules:
            figures[MODULES_NAME] = draw_modules(history)
        return save_figures(figures, folder, formats)


def _draw_rates(axis: Any, history: ConflictHistory, pair: Pair) -> None:
    epochs, rates = history.conflict_rates(pair)
    axis.bar(epochs, 100 * rates, color=BLUE)
    highest = rates.max(initial=0)
    if len(history.views) == 2:
        label = f"about {100 * PAPER_CONFLICT_RATE:g} % in arXiv 2509.20682"
        axis.axhline(100 * PAPER_CONFLICT_RATE, color=GRAY, linewidth=1, linestyle="--", label=label)
        axis.legend(loc="upper left")
        highest = max(highest, PAPER_CONFLICT_RATE)
    axis.set_ylim(0, min(100, 130 * highest) or 1)
    axis.xaxis.get_major_locator().set_params(integer=True)
    if len(epochs) < 10:
        axis.set_xticks(epochs)
    axis.set_xlabel("epoch")
    axis.set_ylabel("updates in conflict (%)")
    axis.set_title(f"Conflict rate of {_pair_name(pair)}")


def _draw_cosines(axis: Any, history: ConflictHistory, pair: Pair) -> None:
    cosines = history.cosines[pair]
    cosines = cosines[np.isfinite(cosines)]
    edges = np.arange(-20, 21) / 20
    conflicting = cosines < 0
    share = conflicting.mean() if len(cosines) else 0.0
    axis.hist(cosines[conflicting], edges, color=VERMILION, label=f"in conflict ({100 * share:.1f} %)")
    axis.hist(cosines[~conflicting], edges, color=BLUE, label="not in conflict")
    axis.axvline(0, color=GRAY, linewidth=1)
    axis.set_xlim(-1, 1)
    axis.set_xticks([-1, -0.5, 0, 0.5, 1])
    axis.set_xlabel(f"cosine of the gradients of {_pair_name(pair)}")
    axis.set_ylabel("updates")
    if axis.get_subplotspec().is_first_row():
        axis.set_title("Histogram of cosines")
    axis.legend(loc="upper left")


def _draw_ratios(axis: Any, history: ConflictHistory, pair: Pair) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ratios = history.norm_ratios[pair]
    is_valid = np.isfinite(ratios) & (ratios > 0)
    steps, ratios = history.steps[is_valid], ratios[is_valid]
    axis.axhline(1, color=GRAY, linewidth=1)
    if len(steps):
        window = max(11, len(steps) // 20) | 1
        size = 5 if len(steps) < 1000 else 3
        axis.plot(steps, ratios, ".", markersize=size, alpha=0.4, color=BLUE, markeredgewidth=0, rasterized=True)
        median = median_filter(ratios, size=window)
        axis.plot(steps, median, color=VERMILION, label=f"running median of {window}")
        axis.legend(loc="upper left")
    axis.set_yscale("log")
    is_wide = len(ratios) and max(ratios.max(), 1) > _MAX_LABELED * min(ratios.min(), 1)
    axis.yaxis.set_major_locator(LogLocator(subs=(1,) if is_wide else (1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("update")
    axis.set_ylabel(f"|{pair[1]}| / |{pair[0]}|")
    if axis.get_subplotspec().is_first_row():
        axis.set_title("Ratio of the gradients' norms")


def _pair_name(pair: Pair) -> str:
    return " and ".join(pair)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no window, no state

    return Figure(figsize=(width, height), layout="constrained")

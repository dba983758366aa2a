#!/usr/bin/env python
"""Draw the figure of the README: what alignment does to two conflicting gradients.

python scripts/draw_alignment.py --output docs/images/alignment.svg

The two gradients are made up; everything else is computed by the package. Needs matplotlib (the extra
`plots`).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hf_gradalign.alignment import compute_gramian, get_method
from hf_gradalign.cli.commands import run_command
from hf_gradalign.score_files import import_matplotlib
from hf_gradalign.utils.messages import error_line

GRADIENTS = {"clean": (1.0, 0.3), "augmented": (-1.6, 1.4)}
COLORS = {"clean": "#1f77b4", "augmented": "#e07b00", "update": "#1a7f37"}
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "hf_gradalign", "font.size": 10, "font.family": "sans-serif"}


def main(argv: Sequence[str]) -> int:
    """Draw from the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("alignment.svg"), help="the file (.svg, .png or .pdf)")
    path = parser.parse_args(argv).output
    try:
        with import_matplotlib().rc_context(STYLE):
            path.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"Date": None} if path.suffix == ".svg" else None
            draw().savefig(path, dpi=150, metadata=metadata, bbox_inches="tight")
    except (ValueError, OSError, ImportError) as error:
        print(error_line(error, path), file=sys.stderr)
        return 2
    print(path)
    return 0


def draw() -> Any:
    """Draw the mean of the two gradients and the update of PCGrad."""
    from matplotlib.figure import Figure

    gradients = torch.tensor(list(GRADIENTS.values()))
    gramian = compute_gramian([[gradient] for gradient in gradients])
    cosine = gramian[0, 1] / (gramian[0, 0] * gramian[1, 1]).sqrt()
    figure = Figure(figsize=(8, 3.4))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, name, title in zip(panels, ("none", "pcgrad"), ("Plain mean", "Aligned (PCGrad)"), strict=True):
        update = get_method(name)(gramian) @ gradients
        for label, arrow in {**dict(zip(GRADIENTS, gradients, strict=True)), "update": update}.items():
            color, (x, y) = COLORS[label], arrow.tolist()
            shape = {"arrowstyle": "-|>", "color": color, "lw": 2.2, "shrinkB": 0}
            panel.annotate("", (x, y), (0, 0), arrowprops=shape)
            offset, side = ((-8, 0), "right") if x < -1 else ((8, 0), "left")
            panel.annotate(label, (x, y), offset, textcoords="offset points", color=color, weight="bold", ha=side)
        clean, augmented = (gradients @ update).tolist()
        products = f"update · clean = {clean:+.2f},  update · augmented = {augmented:+.2f}"
        panel.set_title(f"{title}\n{products}", fontsize=9)
        panel.axhline(0, color="0.9", zorder=0)
        panel.axvline(0, color="0.9", zorder=0)
        panel.set(aspect="equal", xlim=(-2.9, 1.9), ylim=(-0.3, 1.8), xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    for view, whole, projected in zip(GRADIENTS, gradients, projections(gradients, gramian), strict=True):
        panels[1].plot(*zip((0, 0), projected.tolist(), strict=True), color=COLORS[view], ls="--", lw=1.2)
        panels[1].plot(*zip(whole.tolist(), projected.tolist(), strict=True), color="0.6", ls=":", lw=1.2)
    notes = (f"conflict: the gradients' cosine is {cosine:.2f}", "dashed: gradients without their conflicting part")
    for panel, note in zip(panels, notes, strict=True):
        panel.set_xlabel(note, color="0.35")
    figure.tight_layout()
    return figure


def projections(gradients: torch.Tensor, gramian: torch.Tensor) -> torch.Tensor:
    """Return each of two gradients without its component along the other one, shape (2, 2)."""
    return gradients - (gramian[0, 1] / gramian.diagonal().flip(0))[:, None] * gradients.flip(0)


if __name__ == "__main__":
    run_command(main)

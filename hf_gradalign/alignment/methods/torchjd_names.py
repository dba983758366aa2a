"""Which of TorchJD's weightings there are by name, and what has to be known of each to use it here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any


@dataclass(frozen=True)
class TorchJDKind:
    """One of TorchJD's Gramian weightings.

    Attributes:
        class_name: The class in `torchjd.aggregation`.
        packages: What must be installed for it.
        defaults: Options that have no default in TorchJD, or another one; the reason stands beside each.
        remembers: Whether it keeps something from call to call. Such a one is given the Gramians as they are; all
            others depend on the Gramian up to a factor only, and are given it scaled to a largest entry of 1.
        relative: Whether its weights mean something only relative to each other; they are then made to sum to 1.
        needs_all: Whether it is undefined where a view has no gradient; such a group gets the mean.
        longest: Longest update, in units of the longest gradient, that is not taken for rounding's work.
    """

    class_name: str
    packages: tuple[str, ...] = ("torchjd",)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    remembers: bool = False
    relative: bool = False
    needs_all: bool = False
    longest: float = float("inf")


_QUADPROG = ("torchjd", "qpsolvers", "quadprog")

TORCHJD_KINDS: dict[str, TorchJDKind] = {
    "upgrad": TorchJDKind("UPGradWeighting", _QUADPROG),
    "dualproj": TorchJDKind("DualProjWeighting", _QUADPROG),
    "mgda": TorchJDKind("MGDAWeighting"),
    # Where the Gramian is nearly singular its weights grow without bound.
    "imtlg": TorchJDKind("IMTLGWeighting", longest=10),
    # With TorchJD's "min" two views with a cosine of 0.99 would make an update of 0.07 times the mean's length;
    # "rmse", as in the authors' code, has the same direction at a length close to the mean's.
    "aligned_mtl": TorchJDKind("AlignedMTLWeighting", defaults={"scale_mode": "rmse"}),
    # 2 is what the authors run their experiments with. The length of its update does not depend on the gradients'.
    "fairgrad": TorchJDKind(
        "FairGradWeighting", ("torchjd", "scipy"), defaults={"alpha": 2.0}, relative=True, needs_all=True
    ),
    # None of the views is out to do harm.
    "krum": TorchJDKind("KrumWeighting", defaults={"n_byzantine": 0}),
    "pcd": TorchJDKind("PCDWeighting", remembers=True),
}


def usable_torchjd_names() -> list[str]:
    """Names whose packages are all installed."""
    return [name for name in TORCHJD_KINDS if not _missing_packages(name)]


def require_packages(name: str) -> None:
    """Check that a method can be used.

    Raises:
        ValueError: If a package that it needs is not installed.
    """
    if missing := _missing_packages(name):
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"alignment method {name!r} needs {' and '.join(missing)}, which {verb} not installed; "
            'pip install "hf-gradalign[torchjd]"'
        )


def _missing_packages(name: str) -> list[str]:
    return [package for package in TORCHJD_KINDS[name].packages if find_spec(package) is None]

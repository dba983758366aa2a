"""Gramian weightings of TorchJD, an optional package, as alignment methods."""

import inspect
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from hf_gradalign.alignment.methods.base import AlignmentMethod, check_state_keys

logger = logging.getLogger(__name__)

# Which eigenvalues TorchJD takes for zero goes by the tensor's type, so the type must not promise more than is known.
_FLOAT64_PRECISION = 1e-10


@dataclass(frozen=True)
class TorchJDSpec:
    """One of TorchJD's Gramian weightings.

    Attributes:
        class_name: The class in `torchjd.aggregation`.
        packages: What must be installed for it.
        defaults: Options that have no default in TorchJD, or another one; the reason stands beside each.
        stateful: Whether it keeps something from call to call. Such a one is given the Gramians as they are; all
            others depend on the Gramian up to a factor only, and are given it scaled to a largest entry of 1.
        normalize: Whether its weights mean something only relative to each other; they are then made to sum to 1.
        requires_nonzero: Whether it is undefined where a view has no gradient; such a group gets the mean.
        max_norm: Longest update, in units of the longest gradient, that is not taken for rounding's work.
    """

    class_name: str
    packages: tuple[str, ...] = ("torchjd",)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    stateful: bool = False
    normalize: bool = False
    requires_nonzero: bool = False
    max_norm: float = float("inf")


_QUADPROG = ("torchjd", "qpsolvers", "quadprog")

TORCHJD_SPECS: dict[str, TorchJDSpec] = {
    "upgrad": TorchJDSpec("UPGradWeighting", _QUADPROG),
    "dualproj": TorchJDSpec("DualProjWeighting", _QUADPROG),
    "mgda": TorchJDSpec("MGDAWeighting"),
    # Where the Gramian is nearly singular its weights grow without bound.
    "imtlg": TorchJDSpec("IMTLGWeighting", max_norm=10),
    # With TorchJD's "min" two views with a cosine of 0.99 would make an update of 0.07 times the mean's length;
    # "rmse", as in the authors' code, has the same direction at a length close to the mean's.
    "aligned_mtl": TorchJDSpec("AlignedMTLWeighting", defaults={"scale_mode": "rmse"}),
    # 2 is what the authors run their experiments with. The length of its update does not depend on the gradients'.
    "fairgrad": TorchJDSpec(
        "FairGradWeighting", ("torchjd", "scipy"), defaults={"alpha": 2.0}, normalize=True, requires_nonzero=True
    ),
    # None of the views is out to do harm.
    "krum": TorchJDSpec("KrumWeighting", defaults={"n_byzantine": 0}),
    "pcd": TorchJDSpec("PCDWeighting", stateful=True),
}


def usable_torchjd_names() -> list[str]:
    """Names whose packages are all installed."""
    return [name for name in TORCHJD_SPECS if not _missing_packages(name)]


def require_packages(name: str) -> None:
    """Check that a method can be used.

    Raises:
        ValueError: If a package that it needs is not installed.
    """
    if missing := _missing_packages(name):
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"alignment method {name!r} needs {' and '.join(missing)}, which {verb} not installed; "
            'pip install "torchjd[fairgrad,quadprog-projector]"'
        )


def _missing_packages(name: str) -> list[str]:
    return [package for package in TORCHJD_SPECS[name].packages if find_spec(package) is None]


class TorchJDWeighting(AlignmentMethod):
    r"""A weighting of TorchJD (torchjd.org) by name.

    Updates are scaled like the views' mean, so that a learning rate can be kept from method to method:

    - `upgrad`: Each gradient's share 1/K of the mean is projected onto the cone of directions that harm no view
      (arXiv 2406.16232). As TorchJD gives it; without a conflict the mean.
    - `dualproj`: The mean is projected onto that cone (GEM, NeurIPS 2017). As TorchJD gives it; without a conflict
      the mean.
    - `mgda`: The shortest vector among the weighted means (arXiv 1810.04650). As TorchJD gives it: weights >= 0
      that sum to 1. The mean for gradients of one length; no update where a view has no gradient, since nothing can
      be gained for it.
    - `imtlg`: All views gain alike per unit of their gradients' length (IMTL-G, ICLR 2021). As TorchJD gives it:
      weights that sum to 1. Opposed gradients have no common gain, and next to them the weights grow without bound;
      where the update would be over 10 times as long as the longest gradient, the mean.
    - `aligned_mtl`: Gradients made orthogonal and of one length (CVPR 2023). As TorchJD gives it with `scale_mode`
      "rmse": the update's squared length is the mean of the Gramian's eigenvalues times at most 1/K; for orthogonal
      gradients of one length the mean.
    - `fairgrad`: :math:`\alpha`-fair gains (arXiv 2402.15638); `alpha` is 2. TorchJD's weights divided by their
      sum: the length of its own update depends on the unit of the loss (and on fp16's loss scale). With `alpha` 1 it
      solves Nash-MTL's problem. Where a view has no gradient, the mean.
    - `krum`: The gradient closest to the others (NeurIPS 2017), for three views and more; `n_byzantine` is 0. As
      TorchJD gives it: weights that sum to 1.
    - `pcd`: The first view's gradient, turned as little as it takes to help the others (arXiv 2606.29521). As
      TorchJD gives it: as long as the first view's gradient. It keeps moving averages of the gradients' squared
      norms, in whose unit `eps` is.

    For opposed, vanishing and other degenerate gradients the weights are finite; where a solver fails, and where
    there is no finite answer, they are the mean's, with one warning. None of the methods draws random numbers. A
    `pref_vector` is taken as it is; one with sum 1 keeps the mean's size. `reg_eps` (1e-4) is added to the diagonal of
    a Gramian of trace 1: a view whose gradient is a hundred times shorter than another's is protected only with a
    smaller one.

    TorchJD weighs one matrix at a time, on the host. The Gramians of all groups go there in one transfer an update,
    and the host waits for them; then it takes about 1 ms a group, `fairgrad` 4 to 60 ms.

    Left out are TorchJD's PCGrad, GradVac and CAGrad (the package has its own, on the device and for many groups at
    once), Nash-MTL, GradDrop, ConFIG, trimmed mean and excess risks (which take the gradients themselves), and MoDo
    and SDMGrad (which need two independent batches).

    Args:
        name: One of `TORCHJD_SPECS`.
        options: What the class in TorchJD takes, with lists for vectors; `reg_eps` is that of its projector.

    Attributes:
        name: The name.
        options: All options that were given or have a default here.

    Raises:
        ValueError: If a package is missing, an option unknown or its value wrong; and when called, if the method
            cannot weigh that number of views.
    """

    def __init__(self, name: str, **options: Any) -> None:
        require_packages(name)
        self.name = name
        self.options = {**TORCHJD_SPECS[name].defaults, **options}
        self._spec = TORCHJD_SPECS[name]
        self._failures = _solver_errors()
        self._has_warned = False
        self._weightings: dict[torch.dtype, nn.Module] = {}
        self._checked_views: int | None = None
        # Of a method that remembers, a weighting for each group; None for one that has seen nothing yet.
        self._groups: list[nn.Module | None] | None = None
        self._remembered_views: int | None = None
        if name == "fairgrad":
            _check_fairness(self.options["alpha"])
        self._check_views(self._views_of_options(), f"wrong options {self.options} for alignment method {name!r}")

    @classmethod
    def known_options(cls, name: str) -> list[str]:
        """Names of the options of a method.

        Raises:
            ValueError: If a package that it needs is not installed.
        """
        require_packages(name)
        known = list(inspect.signature(_class_of(name)).parameters)
        # Gramians come scaled, so that the projector's other option has nothing to do.
        return ["reg_eps" if option == "projector" else option for option in known]

    def _weights(self, gramian: Tensor, valid: Tensor, precision: float) -> Tensor:
        groups, views = gramian.shape[:2]
        if views != self._checked_views:
            self._check_views(views, f"alignment method {self.name!r} cannot weigh {views} views with {self.options}")
        if self._spec.stateful:
            self._check_groups(groups, views)
        # What is valid goes along, for the sake of one transfer.
        host = torch.cat([gramian.flatten(1), valid[:, None].to(gramian)], 1).cpu().double()
        dtype = torch.float64 if precision < _FLOAT64_PRECISION else torch.float32
        weights = torch.full((groups, views), 1 / views, dtype=torch.float64)
        for group, row in enumerate(host):
            if row[-1]:
                weights[group] = self._weigh(row[:-1].view(views, views), group, dtype)
        return weights.to(gramian)

    def _weigh(self, gramian: Tensor, group: int, dtype: torch.dtype) -> Tensor:
        """Weights (K,) of one group, float64; of a method that remembers, with a look into its past."""
        mean = torch.full((len(gramian),), 1 / len(gramian), dtype=torch.float64)
        if self._spec.requires_nonzero and not (gramian.diagonal() > 0).all():
            return mean
        largest = gramian.diagonal().amax()
        if largest > 0 and not self._spec.stateful:
            gramian = gramian / largest  # TorchJD takes a trace below 1e-4 for zero, whatever the unit of the loss
        try:
            weights = self._weighting(group, dtype)(gramian.to(dtype)).double()
        except self._failures as error:
            return self._give_up(mean, str(error))
        if self._spec.normalize:
            weights = weights / weights.sum()
        if not torch.isfinite(weights).all():
            return self._give_up(mean, f"it gave {weights.tolist()}")
        if weights @ gramian @ weights > self._spec.max_norm**2 * gramian.diagonal().amax():
            return self._give_up(mean, f"{weights.tolist()} would make an update far longer than any gradient")
        return weights

    def _weighting(self, group: int, dtype: torch.dtype) -> nn.Module:
        if self._groups is not None:
            if self._groups[group] is None:
                self._groups[group] = self._make(dtype)
            return self._groups[group]
        if dtype not in self._weightings:
            self._weightings[dtype] = self._make(dtype)
        return self._weightings[dtype]

    def _make(self, dtype: torch.dtype) -> nn.Module:
        options = {
            option: torch.tensor(value, dtype=dtype) if isinstance(value, (list, tuple)) else value
            for option, value in self.options.items()
        }
        if "reg_eps" in options:
            from torchjd.linalg import QuadprogProjector

            options["projector"] = QuadprogProjector(reg_eps=options.pop("reg_eps"))
        return _class_of(self.name)(**options)

    def _give_up(self, mean: Tensor, reason: str) -> Tensor:
        if not self._has_warned:
            logger.warning(
                f"Alignment method {self.name!r} failed on a Gramian ({reason}); there the update is the mean of the "
                "views' gradients. Further failures are not told."
            )
            self._has_warned = True
        return mean

    def _check_views(self, views: int, complaint: str) -> None:
        """Weigh orthogonal gradients, which nothing but a wrong option makes fail; and leave no trace of it."""
        try:
            weights = self._make(torch.float64)(torch.eye(views, dtype=torch.float64))
            if not torch.isfinite(weights).all():
                raise ValueError(f"it gives {weights.tolist()}")
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{complaint}: {error}") from error
        self._checked_views = views

    def _views_of_options(self) -> int:
        """A number of views that the options fit, if they fit any."""
        for option, more in (("pref_vector", 0), ("tau", 1)):
            if isinstance(value := self.options.get(option), (list, tuple)):
                return len(value) + more
        counts = [self.options.get(option, 0) for option in ("n_byzantine", "n_selected")]
        return max(2, counts[0] + 3, counts[1]) if self.name == "krum" and all(map(_is_number, counts)) else 2

    def _check_groups(self, groups: int, views: int) -> None:
        if self._groups is None:
            self._groups = [None] * groups
            self._remembered_views = views
        if (len(self._groups), self._remembered_views) != (groups, views):
            raise ValueError(
                f"{self.name} remembers (groups, views) = {(len(self._groups), self._remembered_views)} and was given "
                f"Gramians of {(groups, views)}; use a fresh method for other views or another scope"
            )

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        if not self._spec.stateful:
            return {}
        if self._groups is None:
            return {"views": None, "groups": None}
        return {"views": self._remembered_views, "groups": [_numbers_of(weighting) for weighting in self._groups]}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        if not self._spec.stateful:
            super().load_state_dict(state)
            return
        check_state_keys(self, state, {"views", "groups"})
        self._groups = None
        if state["groups"] is not None:
            self._remembered_views = int(state["views"])
            self._groups = [self._restore(numbers) for numbers in state["groups"]]

    def _restore(self, numbers: dict[str, Any] | None) -> nn.Module | None:
        if numbers is None:
            return None
        weighting = self._make(torch.float64)
        weighting(torch.eye(self._remembered_views, dtype=torch.float64))  # so that there are buffers to load into
        kept = weighting.state_dict()
        weighting.load_state_dict({key: torch.tensor(numbers[key], dtype=kept[key].dtype) for key in kept})
        return weighting


def _class_of(name: str) -> type[nn.Module]:
    from torchjd import aggregation

    return getattr(aggregation, TORCHJD_SPECS[name].class_name)


def _numbers_of(weighting: nn.Module | None) -> dict[str, Any] | None:
    return None if weighting is None else {key: value.tolist() for key, value in weighting.state_dict().items()}


def _solver_errors() -> tuple[type[Exception], ...]:
    """What TorchJD and its solvers (SciPy's errors are ValueErrors) may raise on a Gramian they cannot cope with."""
    errors: list[type[Exception]] = [ValueError, ArithmeticError, torch.linalg.LinAlgError]
    with suppress(ImportError):
        from qpsolvers.exceptions import QPError

        errors.append(QPError)
    return tuple(errors)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_fairness(alpha: Any) -> None:
    if not _is_number(alpha) or not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha of fairgrad must be a number of 0 or more, got {alpha!r}")

"""Alignment methods from TorchJD, an optional package."""

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
from hf_gradalign.alignment.methods.option_types import check_types

logger = logging.getLogger(__name__)

# TorchJD's threshold for zero eigenvalues depends on the tensor's type, so the type must match the true precision.
_FLOAT64_PRECISION = 1e-10


@dataclass(frozen=True)
class TorchJDSpec:
    """Describes one of TorchJD's Gramian weightings.

    Attributes:
        class_name: The class in `torchjd.aggregation`.
        packages: Packages that the weighting needs.
        defaults: Options without a default in TorchJD, or with a different one; a comment gives the reason.
        stateful: Whether the weighting keeps state between calls. A stateful weighting gets unscaled Gramians. The
            others do not depend on the scale, and get Gramians whose largest entry is 1.
        normalize: Whether only the ratios of the weights matter. They are then scaled to sum to 1.
        requires_nonzero: Whether the weighting is undefined for a zero gradient. A group with one gets the mean.
        max_norm: Largest norm of an update, relative to the largest gradient. Larger ones are treated as rounding
            errors.
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
    # Its weights grow without bound for a nearly singular Gramian.
    "imtlg": TorchJDSpec("IMTLGWeighting", max_norm=10),
    # With TorchJD's "min", two views with a cosine of 0.99 would give an update 0.07 times as long as the mean. "rmse",
    # as in the authors' code, gives the same direction with a length close to that of the mean.
    "aligned_mtl": TorchJDSpec("AlignedMTLWeighting", defaults={"scale_mode": "rmse"}),
    # The authors use 2 in their experiments. The length of the update does not depend on that of the gradients.
    "fairgrad": TorchJDSpec(
        "FairGradWeighting", ("torchjd", "scipy"), defaults={"alpha": 2.0}, normalize=True, requires_nonzero=True
    ),
    # No view is adversarial.
    "krum": TorchJDSpec("KrumWeighting", defaults={"n_byzantine": 0}),
    "pcd": TorchJDSpec("PCDWeighting", stateful=True),
}


def usable_torchjd_names() -> list[str]:
    """Return the names whose packages are all installed."""
    return [name for name in TORCHJD_SPECS if not _missing_packages(name)]


def require_packages(name: str) -> None:
    """Check that a method's packages are installed.

    Raises:
        ValueError: If one is missing.
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
    r"""A weighting of TorchJD (torchjd.org), chosen by name.

    Updates are about as long as the mean gradient, so that different methods can share a learning rate:

    - `upgrad`: Projects each gradient's share 1/K of the mean onto the cone of directions that harm no view
      (arXiv 2406.16232). Weights as in TorchJD; the mean if there is no conflict.
    - `dualproj`: Projects the mean onto that cone (GEM, NeurIPS 2017). Weights as in TorchJD; the mean if there is no
      conflict.
    - `mgda`: The shortest vector among the weighted means (arXiv 1810.04650). Weights as in TorchJD: >= 0, with sum 1.
      The mean for gradients of equal length; no update if a view has a zero gradient, which cannot improve.
    - `imtlg`: All views improve equally per unit of their gradients' length (IMTL-G, ICLR 2021). Weights as in TorchJD:
      with sum 1. Opposed gradients have no common improvement, and close to them the weights grow without bound. If the
      update would be more than 10 times as long as the longest gradient, it is the mean.
    - `aligned_mtl`: Makes the gradients orthogonal and equally long (CVPR 2023). Weights as in TorchJD with
      `scale_mode` "rmse": the squared length of the update is at most the mean of the Gramian's eigenvalues divided by
      K; the mean for orthogonal gradients of equal length.
    - `fairgrad`: :math:`\alpha`-fair improvements (arXiv 2402.15638) with `alpha` 2. TorchJD's weights divided by their
      sum, because the length of the original update depends on the unit of the loss (and on the loss scale in fp16).
      With `alpha` 1 it solves the problem of Nash-MTL. The mean if a view has a zero gradient.
    - `krum`: The gradient closest to the others (NeurIPS 2017), for three or more views, with `n_byzantine` 0. Weights
      as in TorchJD: with sum 1.
    - `pcd`: Rotates the first view's gradient as little as necessary to help the others (arXiv 2606.29521). Weights as
      in TorchJD: the update is as long as the first view's gradient. It keeps moving averages of the gradients' squared
      norms, and `eps` is in units of these.

    Weights are finite for opposed, zero and other degenerate gradients. If a solver fails or there is no finite
    solution, the update is the mean, with one warning. No method draws random numbers. A `pref_vector` is not
    normalized; one with sum 1 keeps the length of the mean. `reg_eps` (1e-4) is added to the diagonal of a Gramian with
    trace 1. A view whose gradient is a hundred times shorter than another's is only protected with a smaller value.

    TorchJD handles one matrix at a time, on the host. The Gramians of all groups are copied together, and the host
    waits for them once per update. Each group then takes about 1 ms (`fairgrad`: 4 to 60 ms).

    Not included are TorchJD's PCGrad, GradVac and CAGrad (this package has its own, on the device and for many groups
    at once), Nash-MTL, GradDrop, ConFIG, trimmed mean and excess risks (which need the gradients themselves), and MoDo
    and SDMGrad (which need two independent batches).

    Args:
        name: A key of `TORCHJD_SPECS`.
        options: Options of the class in TorchJD, with lists for vectors; `reg_eps` is an option of its projector.

    Attributes:
        name: The name.
        options: All options that were given or have a default here.

    Raises:
        ValueError: If a package is missing, an option is unknown, or its value is invalid; when called, if the method
            does not support this number of views.
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
        # For a stateful method, the weighting of each group; None for a group without a call so far.
        self._groups: list[nn.Module | None] | None = None
        self._state_views: int | None = None
        if name == "fairgrad":
            _check_alpha(self.options["alpha"])
        self._check_views(self._fitting_view_count(), f"wrong options {self.options} for alignment method {name!r}")
        # TorchJD accepts some wrong types, such as true for 1.
        check_types(name, options, _torchjd_class(name).__init__)

    @classmethod
    def known_options(cls, name: str) -> list[str]:
        """Return the names of a method's options.

        Raises:
            ValueError: If a package that the method needs is not installed.
        """
        require_packages(name)
        known = list(inspect.signature(_torchjd_class(name)).parameters)
        # Gramians are scaled, so the projector's other option has no effect.
        return ["reg_eps" if option == "projector" else option for option in known]

    def _weights(self, gramian: Tensor, valid: Tensor, precision: float) -> Tensor:
        groups, views = gramian.shape[:2]
        if views != self._checked_views:
            self._check_views(
                views, f"alignment method {self.name!r} does not support {views} views with {self.options}"
            )
        if self._spec.stateful:
            self._check_groups(groups, views)
        # Copy both in one transfer.
        host = torch.cat([gramian.flatten(1), valid[:, None].to(gramian)], 1).cpu().double()
        dtype = torch.float64 if precision < _FLOAT64_PRECISION else torch.float32
        weights = torch.full((groups, views), 1 / views, dtype=torch.float64)
        for group, row in enumerate(host):
            if row[-1]:
                weights[group] = self._weigh(row[:-1].view(views, views), group, dtype)
        return weights.to(gramian)

    def _weigh(self, gramian: Tensor, group: int, dtype: torch.dtype) -> Tensor:
        """Return the weights (K,) of one group, float64. Updates the state of a stateful method."""
        mean = torch.full((len(gramian),), 1 / len(gramian), dtype=torch.float64)
        if self._spec.requires_nonzero and not (gramian.diagonal() > 0).all():
            return mean
        largest = gramian.diagonal().amax()
        if largest > 0 and not self._spec.stateful:
            gramian = gramian / largest  # TorchJD treats a trace below 1e-4 as zero
        try:
            weights = self._weighting(group, dtype)(gramian.to(dtype)).double()
        except self._failures as error:
            return self._fall_back_to_mean(mean, str(error))
        if self._spec.normalize:
            weights = weights / weights.sum()
        if not torch.isfinite(weights).all():
            return self._fall_back_to_mean(mean, f"its weights are {weights.tolist()}")
        if weights @ gramian @ weights > self._spec.max_norm**2 * gramian.diagonal().amax():
            return self._fall_back_to_mean(
                mean, f"{weights.tolist()} would give an update far longer than any gradient"
            )
        return weights

    def _weighting(self, group: int, dtype: torch.dtype) -> nn.Module:
        if self._groups is not None:
            weighting = self._groups[group] or self._make(dtype)
            self._groups[group] = weighting
            return weighting
        if dtype not in self._weightings:
            self._weightings[dtype] = self._make(dtype)
        return self._weightings[dtype]

    def _make(self, dtype: torch.dtype) -> nn.Module:
        options: dict[str, Any] = {
            option: torch.tensor(value, dtype=dtype) if isinstance(value, (list, tuple)) else value
            for option, value in self.options.items()
        }
        if "reg_eps" in options:
            from torchjd.linalg import QuadprogProjector

            options["projector"] = QuadprogProjector(reg_eps=options.pop("reg_eps"))
        return _torchjd_class(self.name)(**options)

    def _fall_back_to_mean(self, mean: Tensor, reason: str) -> Tensor:
        if not self._has_warned:
            logger.warning(
                f"Alignment method {self.name!r} failed on a Gramian ({reason}); the mean of the views' gradients is "
                "used instead. Further failures are not reported."
            )
            self._has_warned = True
        return mean

    def _check_views(self, views: int, complaint: str) -> None:
        """Test the options on orthogonal gradients, where only invalid options fail. Does not change any state."""
        try:
            weights = self._make(torch.float64)(torch.eye(views, dtype=torch.float64))
            if not torch.isfinite(weights).all():
                raise ValueError(f"its weights are {weights.tolist()}")
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{complaint}: {error}") from error
        self._checked_views = views

    def _fitting_view_count(self) -> int:
        """Return a number of views that fits the options, if there is one."""
        for option, more in (("pref_vector", 0), ("tau", 1)):
            if isinstance(value := self.options.get(option), (list, tuple)):
                return len(value) + more
        counts = [self.options.get(option, 0) for option in ("n_byzantine", "n_selected")]
        return max(2, counts[0] + 3, counts[1]) if self.name == "krum" and all(map(_is_number, counts)) else 2

    def _check_groups(self, groups: int, views: int) -> None:
        if self._groups is None:
            self._groups = [None] * groups
            self._state_views = views
        if (len(self._groups), self._state_views) != (groups, views):
            raise ValueError(
                f"{self.name} has state for (groups, views) = {(len(self._groups), self._state_views)} and was given "
                f"Gramians for {(groups, views)}; create a new method for other views or another scope"
            )

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        if not self._spec.stateful:
            return {}
        if self._groups is None:
            return {"views": None, "groups": None}
        return {"views": self._state_views, "groups": [_state_as_lists(weighting) for weighting in self._groups]}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        if not self._spec.stateful:
            super().load_state_dict(state)
            return
        check_state_keys(self, state, {"views", "groups"})
        self._groups = None
        if state["groups"] is not None:
            self._state_views = int(state["views"])
            self._groups = [self._restore(numbers, self._state_views) for numbers in state["groups"]]

    def _restore(self, numbers: dict[str, Any] | None, views: int) -> nn.Module | None:
        if numbers is None:
            return None
        weighting = self._make(torch.float64)
        weighting(torch.eye(views, dtype=torch.float64))  # creates the buffers to load into
        buffers = weighting.state_dict()
        weighting.load_state_dict({key: torch.tensor(numbers[key], dtype=buffers[key].dtype) for key in buffers})
        return weighting


def _torchjd_class(name: str) -> type[nn.Module]:
    from torchjd import aggregation

    return getattr(aggregation, TORCHJD_SPECS[name].class_name)


def _state_as_lists(weighting: nn.Module | None) -> dict[str, Any] | None:
    return None if weighting is None else {key: value.tolist() for key, value in weighting.state_dict().items()}


def _solver_errors() -> tuple[type[Exception], ...]:
    """Return the errors that TorchJD and its solvers may raise for a Gramian (SciPy raises ValueError)."""
    errors: list[type[Exception]] = [ValueError, ArithmeticError, torch.linalg.LinAlgError]
    with suppress(ImportError):
        from qpsolvers.exceptions import QPError

        errors.append(QPError)
    return tuple(errors)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_alpha(alpha: Any) -> None:
    if not _is_number(alpha) or not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha of fairgrad must be a number that is 0 or more, got {alpha!r}")

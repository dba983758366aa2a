"""Gradient alignment: view gradients -> Gramian -> method -> weights -> combined gradient. Needs torch only.

The methods of TorchJD also need that package (the extra `torchjd`), which is imported when one is asked for.
"""

from hf_gradalign.alignment.conflict import RunningMeans, conflict_statistics, conflicts, gradient_statistics
from hf_gradalign.alignment.gramian import compute_gramian, compute_products
from hf_gradalign.alignment.methods import (
    CRMOGM,
    AlignmentMethod,
    CAGrad,
    GradVac,
    NoAlignment,
    PCGrad,
    TorchJDWeighting,
    available_methods,
    canonical_name,
    get_method,
)
from hf_gradalign.alignment.parameter_groups import AlignmentScope, ParameterGroups, check_scope
from hf_gradalign.alignment.sharding import is_sharded_tensor
from hf_gradalign.alignment.view_gradients import ViewGradients

__all__ = [
    "CRMOGM",
    "AlignmentMethod",
    "AlignmentScope",
    "CAGrad",
    "GradVac",
    "NoAlignment",
    "PCGrad",
    "ParameterGroups",
    "RunningMeans",
    "TorchJDWeighting",
    "ViewGradients",
    "available_methods",
    "canonical_name",
    "check_scope",
    "compute_gramian",
    "compute_products",
    "conflict_statistics",
    "conflicts",
    "get_method",
    "gradient_statistics",
    "is_sharded_tensor",
]

"""Gradient alignment: view gradients -> Gramian -> method -> weights -> combined gradient. Needs only torch.

The methods of TorchJD also need that package (the extra `torchjd`), which is imported when one of them is used.
"""

from hf_gradalign.alignment.aligner import (
    AlignedUpdate,
    Aligner,
    check_view_weights,
    positive_weights,
    statistics_of_updates,
)
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
from hf_gradalign.alignment.statistics import (
    ConflictCounts,
    RunningMeans,
    conflict_statistics,
    conflicts,
    gradient_statistics,
)
from hf_gradalign.alignment.view_gradients import (
    ViewGradients,
    compute_gramian,
    compute_products,
    is_sharded_tensor,
    local_part,
)

__all__ = [
    "CRMOGM",
    "AlignedUpdate",
    "Aligner",
    "AlignmentMethod",
    "AlignmentScope",
    "CAGrad",
    "ConflictCounts",
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
    "check_view_weights",
    "compute_gramian",
    "compute_products",
    "conflict_statistics",
    "conflicts",
    "get_method",
    "gradient_statistics",
    "is_sharded_tensor",
    "local_part",
    "positive_weights",
    "statistics_of_updates",
]

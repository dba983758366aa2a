"""Gradient alignment: view gradients -> Gramian -> method -> weights -> combined gradient. Needs torch only."""

from hf_gradalign.alignment.conflict import RunningMeans, conflict_statistics
from hf_gradalign.alignment.gramian import compute_gramian
from hf_gradalign.alignment.methods import (
    AlignmentMethod,
    CAGrad,
    GradVac,
    NoAlignment,
    PCGrad,
    available_methods,
    get_method,
)
from hf_gradalign.alignment.view_gradients import ViewGradients

__all__ = [
    "AlignmentMethod",
    "CAGrad",
    "GradVac",
    "NoAlignment",
    "PCGrad",
    "RunningMeans",
    "ViewGradients",
    "available_methods",
    "compute_gramian",
    "conflict_statistics",
    "get_method",
]

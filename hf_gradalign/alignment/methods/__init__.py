"""Alignment methods, one a file: each maps a Gramian to weights."""

from hf_gradalign.alignment.methods.base import AlignmentMethod
from hf_gradalign.alignment.methods.cagrad import CAGrad
from hf_gradalign.alignment.methods.gradvac import GradVac
from hf_gradalign.alignment.methods.no_alignment import NoAlignment
from hf_gradalign.alignment.methods.pcgrad import PCGrad
from hf_gradalign.alignment.methods.registry import available_methods, get_method

__all__ = ["AlignmentMethod", "CAGrad", "GradVac", "NoAlignment", "PCGrad", "available_methods", "get_method"]

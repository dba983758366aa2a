"""Alignment methods, one file each: each maps a Gramian to weights. To add one, write its file and import it here."""

from hf_gradalign.alignment.methods.base import AlignmentMethod
from hf_gradalign.alignment.methods.cagrad import CAGrad
from hf_gradalign.alignment.methods.crmogm import CRMOGM
from hf_gradalign.alignment.methods.gradvac import GradVac
from hf_gradalign.alignment.methods.no_alignment import NoAlignment
from hf_gradalign.alignment.methods.pcgrad import PCGrad
from hf_gradalign.alignment.methods.registry import available_methods, canonical_name, get_method
from hf_gradalign.alignment.methods.torchjd import TorchJDWeighting

__all__ = [
    "CRMOGM",
    "AlignmentMethod",
    "CAGrad",
    "GradVac",
    "NoAlignment",
    "PCGrad",
    "TorchJDWeighting",
    "available_methods",
    "canonical_name",
    "get_method",
]

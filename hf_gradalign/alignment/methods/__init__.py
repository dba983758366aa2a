"""Alignment methods, one file each, that map a Gramian to weights. To add one, write its file and import it here."""

# Messages and help list the methods in this order: the paper's first, new ones before CRMOGM.
from hf_gradalign.alignment.methods.base import AlignmentMethod  # isort: skip
from hf_gradalign.alignment.methods.no_alignment import NoAlignment  # isort: skip
from hf_gradalign.alignment.methods.pcgrad import PCGrad  # isort: skip
from hf_gradalign.alignment.methods.gradvac import GradVac  # isort: skip
from hf_gradalign.alignment.methods.cagrad import CAGrad  # isort: skip
from hf_gradalign.alignment.methods.crmogm import CRMOGM  # isort: skip
from hf_gradalign.alignment.methods.torchjd import TorchJDWeighting  # isort: skip
from hf_gradalign.alignment.methods.registry import available_methods, canonical_name, get_method  # isort: skip

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

"""RawBoost, for single clips and for batches on any device."""

from hf_gradalign.augmentation.rawboost.batched import BatchedRawBoost
from hf_gradalign.augmentation.rawboost.noises import ALGORITHMS
from hf_gradalign.augmentation.rawboost.transform import RawBoost

__all__ = ["ALGORITHMS", "BatchedRawBoost", "RawBoost"]

"""RawBoost's eight algorithms: what each is made of, and how its noises follow each other."""

from collections.abc import Callable

from torch import Tensor

from hf_gradalign.augmentation.levels import limit_peak_

# The kinds of noise in each algorithm, in their order; algorithm 8 applies its two in parallel, the others in series.
ALGORITHMS: dict[int, tuple[str, ...]] = {
    1: ("convolutive",),
    2: ("impulsive",),
    3: ("stationary",),
    4: ("convolutive", "impulsive", "stationary"),
    5: ("convolutive", "impulsive"),
    6: ("convolutive", "stationary"),
    7: ("impulsive", "stationary"),
    8: ("convolutive", "impulsive"),
}
PARALLEL_ALGORITHM = 8

MAX_IMPULSIVE_GAIN = 1e6


def combine_noises(algorithm: int, samples: Tensor, add: Callable[[str, Tensor], Tensor]) -> Tensor:
    """Put an algorithm's noises on waveforms of shape (batch, samples).

    Args:
        algorithm: 1 to 8.
        samples: The waveforms.
        add: Gives waveforms with a kind of noise on them.
    """
    kinds = ALGORITHMS[algorithm]
    if algorithm == PARALLEL_ALGORITHM:
        return limit_peak_(sum(add(kind, samples) for kind in kinds))
    for kind in kinds:
        samples = add(kind, samples)
    return samples

"""The random order in which some methods visit the other views; reproducible, and the same on every process."""

import torch


def visiting_order(views: int, view: int, seed: int, call: int) -> list[int]:
    """The other views in random order, a function of the arguments alone.

    With two views there is no choice, and nothing is drawn. Every process of a distributed run gets the same order
    without talking to the others, and a resumed run needs to remember only the number of calls.

    Args:
        views: Number of views K.
        view: The view that is being adjusted, in [0, K).
        seed: The method's seed.
        call: How many times the method was called before.
    """
    others = [other for other in range(views) if other != view]
    if len(others) < 2:
        return others
    generator = torch.Generator().manual_seed(hash((seed, call, view)) % 2**63)
    return [others[index] for index in torch.randperm(len(others), generator=generator)]

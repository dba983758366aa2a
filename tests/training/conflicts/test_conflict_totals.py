import pytest
import torch
from device_transfers import DeviceTransfers

from hf_gradalign.alignment import AlignedUpdate, ConflictCounts, RunningMeans, conflicts
from hf_gradalign.training.conflicts.totals import ConflictTotals


def make_updates(n, views=("clean", "augmented"), groups=1, scaled=False):
    generator = torch.Generator().manual_seed(n)
    updates = []
    for number in range(n):
        gradients = torch.randn(groups, len(views), 3, generator=generator)
        gramians = gradients @ gradients.mT
        if number % 5 == 3:
            gramians = gramians * torch.nan
        weights = torch.rand(groups, len(views), generator=generator)
        losses = {view: torch.rand((), generator=generator) for view in views}
        scale = torch.tensor(2.0**number) if scaled else None
        updates.append(AlignedUpdate(list(views), gramians, gramians, weights, losses, scale))
    return updates


def one_by_one(updates):
    means, counts = RunningMeans(), ConflictCounts()
    for number, update in enumerate(updates):
        means.update(update.statistics())
        counts.update(number // 50, conflicts(update.gramians.sum(0)))
    return means, counts


@pytest.mark.parametrize("read_every", [1, 7, 1000])
@pytest.mark.parametrize(
    "updates",
    [
        make_updates(150),
        make_updates(9, groups=5, scaled=True),
        make_updates(9, views=["only"]),
        make_updates(9, views="abc"),
        [*make_updates(5), *make_updates(5, views="abc"), *make_updates(5, scaled=True)],
    ],
    ids=["many", "groups and a loss scale", "one view", "three views", "views change"],
)
def test_totals_are_those_of_single_updates_to_the_bit(updates, read_every):
    totals = ConflictTotals()
    for number, update in enumerate(updates):
        totals.add(number // 50, update)
        if number % read_every == 0:
            _ = totals.counts
    means, counts = one_by_one(updates)
    assert totals.since_last_log.state_dict() == means.state_dict()
    assert totals.counts.state_dict() == counts.state_dict()
    assert len(totals.since_last_log) == len(updates)


def test_most_updates_compute_nothing():
    updates, totals = make_updates(63), ConflictTotals()
    with DeviceTransfers() as transfers:
        for update in updates:
            totals.add(0, update)
        assert transfers.operations == []
        assert totals.counts.rate() is not None

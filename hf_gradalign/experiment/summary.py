"""The short table that a run ends with."""

from hf_gradalign.experiment.results import RunResults

_SPLITS = {"eval": "validation", "test": "test"}


def summary_table(results: RunResults, method: str) -> str:
    """Equal error rates by split and system and conflict rates by epoch, in per cent, as text."""
    lines = ["Equal error rate (%)"]
    for prefix, split in _SPLITS.items():
        if f"{prefix}_eer" not in results.metrics:
            continue
        lines.append(f"  {split:<12}{100 * results.metrics[f'{prefix}_eer']:6.2f}")
        for system, rate in sorted(results.eer_by_system.get(prefix, {}).items()):
            lines.append(f"    {system:<10}{100 * rate:6.2f}")
    views = results.settings.get("views", {})
    if len(views) == 1:
        lines.append(f"One view ({', '.join(views)}), so no gradients to align")
    else:
        which = f"any two of the views ({', '.join(views)})" if len(views) > 2 else "the views"
        lines.append(f"Updates in which the gradients of {which} conflicted (%), alignment: {method}")
    if results.conflict_rate is not None:
        by_epoch = [f"{100 * rate:.0f}" for rate in results.conflict_rate_by_epoch.values()]
        lines.append(f"  {'all':<12}{100 * results.conflict_rate:6.2f}")
        lines.append(f"  {'by epoch':<12}{' '.join(f'{rate:>5}' for rate in by_epoch)}")
    if results.nonfinite_updates:
        lines.append(f"  {results.nonfinite_updates} updates had gradients that were not finite")
    if results.skipped_updates:
        lines.append(f"  {results.skipped_updates} updates were skipped (--on_nonfinite skip)")
    lines += results.remarks
    return "\n".join(lines)

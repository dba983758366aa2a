#!/usr/bin/env python
"""Describe the updates in which views conflict: which clips, layers and losses, and what the cosine predicts.

python scripts/describe_conflicts.py docs/studies/conflict
python scripts/describe_conflicts.py docs/studies/conflict --collect runs/studies/conflict --corpus /data/corpora

FOLDER has `epochs.parquet` of a study, `updates.parquet` (one row per update of the runs without alignment) and
`train_clips.parquet` (the clips of these updates). --collect makes the latter two from the folder of a study with
--conflict_record_ids and --conflict_record_modules. The script writes `conflicts.md` and two figures.

Updates differ from epoch to epoch and from seed to seed. So a conflicting update is compared only with the other
updates of its epoch and seed, and intervals (95 %) are over seeds.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from benchmark_step import print_table
from scipy import stats

from hf_gradalign.cli.commands import run_command
from hf_gradalign.data import load_corpus
from hf_gradalign.study.definition import DUAL_PATH
from hf_gradalign.study.tables import TRIALS_DIR
from hf_gradalign.training.conflicts.record import epoch_number, find_conflict_record, read_conflict_rows
from hf_gradalign.utils.figure_style import BLUE, GRAY, STYLE, VERMILION, import_matplotlib, save_figures
from hf_gradalign.utils.messages import error_line

UPDATES, TRAIN_CLIPS, PAGE = "updates.parquet", "train_clips.parquet", "conflicts.md"
CLIP_COLUMNS = ["utterance_id", "label", "system", "speaker", "language", "duration"]
N_DRAWS = 2000
FEW_SEEDS = 10  # a bootstrap over ten seeds excludes the true mean in 10 % of the cases, over five in 16 %
N_PERMUTATIONS = 1000


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval, from a bootstrap over seeds."""

    mean: float
    low: float
    high: float

    def text(self, factor: float = 1.0, digits: int = 2) -> str:
        """The estimate as text, multiplied by `factor`."""
        mean, low, high = (f"{factor * value:.{digits}f}" for value in self)
        return f"{mean} ({low} to {high})"


def main(argv: Sequence[str]) -> int:
    """Write the page and the figures, and return the exit status."""
    options = parse(argv)
    try:
        import_matplotlib()  # fail before the work if it is missing
        if options.collect is not None:
            collect(options.collect, options.corpus, options.folder)
        epochs = read_epochs(options.folder)
        if not (options.folder / UPDATES).is_file():
            raise FileNotFoundError(f"{options.folder} has no {UPDATES}. Make it with --collect")
        updates = pd.read_parquet(options.folder / UPDATES)
        clips = pd.read_parquet(options.folder / TRAIN_CLIPS)
        if updates["conflict"].nunique() < 2:
            raise ValueError(f"there is nothing to compare: of {len(updates):,} updates, all or none conflict")
        if updates["seed"].nunique() < 2:
            raise ValueError("intervals are over seeds, and there is only one: train with more")
    except (ValueError, OSError, ImportError) as error:
        print(error_line(error, options.folder), file=sys.stderr)
        return 2
    output = options.output or options.folder
    output.mkdir(parents=True, exist_ok=True)
    tables = {
        "systems": describe_systems(updates, clips),
        "clips": describe_clips(updates, clips),
        "modules": describe_modules(updates),
        "losses": describe_losses(updates),
        "prediction": describe_prediction(epochs),
    }
    with (output / PAGE).open("w", encoding="utf-8") as file, redirect_stdout(file):
        print_page(tables, updates)
    with import_matplotlib().rc_context(STYLE):
        figures = {"conflicting_layers": draw_modules(tables["modules"])}
        figures["conflicting_clips"] = draw_systems_and_prediction(tables["systems"], epochs)
    save_figures(figures, output / "figures", ["png"])
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--collect", type=Path, metavar="STUDY", help="folder of the study to collect updates from")
    parser.add_argument("--corpus", help="the corpus that it trained on (the demo corpus)")
    parser.add_argument("--output", type=Path, help="folder of the page and the figures (FOLDER)")
    return parser.parse_args(argv)


def read_epochs(study: Path) -> pd.DataFrame:
    """Read the epochs of a study.

    Raises:
        FileNotFoundError: If the folder is not that of a study.
        ValueError: If the runs without alignment differ in more than their seed.
    """
    path = study / "epochs.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{study} has no {path.name}. Give the folder of a study")
    epochs = pd.read_parquet(path)
    runs = epochs[epochs["method"] == DUAL_PATH][["cell", "seed"]].drop_duplicates()
    if runs["seed"].duplicated().any():
        raise ValueError(
            f"{study} has {len(runs)} runs without alignment, but only {runs['seed'].nunique()} seeds. A description "
            "is of runs that differ in nothing else: make a study of one setting"
        )
    return epochs


def collect(study: Path, corpus: str | None, folder: Path) -> None:
    """Write the updates of all runs without alignment, and their clips, into `folder`.

    Updates whose gradients are not finite, which neither conflict nor agree, are left out.

    Raises:
        ValueError: If a run's record lacks the ids of its clips or the modules; as `read_epochs`.
    """
    train = load_corpus(corpus, splits=("train",))["train"]
    known = train.select_columns([name for name in CLIP_COLUMNS if name in train.column_names]).to_pandas()
    position = {name: index for index, name in enumerate(known["utterance_id"])}
    rows: list[dict[str, Any]] = []
    epochs = read_epochs(study)
    runs = epochs[epochs["method"] == DUAL_PATH][["cell", "seed"]].drop_duplicates()
    for run in runs.sort_values("seed").itertuples():
        record = find_conflict_record(study / TRIALS_DIR / str(run.cell))
        if record is None:
            raise ValueError(f"{study / TRIALS_DIR / str(run.cell)} has no conflict record")
        for row in read_conflict_rows(record):
            if not set(row.get("ids") or ()) <= position.keys():
                raise ValueError(
                    f"{record} has other clips than {corpus or 'the demo corpus'}: give the study's --corpus"
                )
            if "ids" not in row or "module" not in row:
                raise ValueError(f"{record} has no ids or no modules: train with --conflict_record_ids and _modules")
            if row["conflict"] is None:
                continue
            rows.append(
                {
                    "seed": run.seed,
                    "step": row["step"],
                    "epoch": epoch_number(row["epoch"]),
                    "conflict": row["conflict"],
                    "cosine": row["cosine_clean_augmented"],
                    **{name: row[name] for name in ("loss_clean", "loss_augmented")},
                    **{name: row[name] for name in ("grad_norm_clean", "grad_norm_augmented")},
                    "clips": [position[name] for name in row["ids"]],
                    "module": row["module"],
                    "module_cosine": row["module_cosine_clean_augmented"],
                }
            )
    updates = pd.DataFrame(rows)
    seen = np.unique(np.concatenate(updates["clips"].tolist()))
    updates["clips"] = [np.searchsorted(seen, clips).astype(np.int16) for clips in updates["clips"]]
    updates["module_cosine"] = [np.array(cosines, np.float32).round(4) for cosines in updates["module_cosine"]]
    folder.mkdir(parents=True, exist_ok=True)
    updates.to_parquet(folder / UPDATES, index=False, compression="zstd")
    known.iloc[seen].to_parquet(folder / TRAIN_CLIPS, index=False, compression="zstd")


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of one value per seed and its interval."""
    array = np.asarray(values, float)
    draws = np.random.default_rng(0).integers(len(array), size=(N_DRAWS, len(array)))
    low, high = np.quantile(array[draws].mean(axis=1), [0.025, 0.975])
    return Estimate(float(array.mean()), float(low), float(high))


def excess(updates: pd.DataFrame, values: Sequence[float]) -> Estimate:
    """Return by how much a value is larger in conflicting updates than in the others of the same epoch and seed.

    Epochs count by their conflicting updates. Those in which all updates or none conflict tell nothing.
    """
    table = updates[["seed", "epoch", "conflict"]].assign(value=np.asarray(values, float))
    means = table.pivot_table("value", ["seed", "epoch"], "conflict", "mean")
    sizes = table[table["conflict"]].groupby(["seed", "epoch"]).size()
    differences = (means[True] - means[False]).dropna()
    weights = sizes.loc[differences.index]
    by_seed = (differences * weights).groupby("seed").sum() / weights.groupby("seed").sum()
    return over_seeds(by_seed.to_numpy())


def clip_counts(updates: pd.DataFrame, n_clips: int) -> np.ndarray:
    """Return how often each clip is in each update, shape (updates, clips)."""
    counts = np.zeros((len(updates), n_clips))
    for row, clips in enumerate(updates["clips"]):
        np.add.at(counts[row], np.asarray(clips), 1)
    return counts


def describe_systems(updates: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """Compare the share of each system among the clips of conflicting updates and of others."""
    counts = clip_counts(updates, len(clips))
    shares = counts / counts.sum(axis=1, keepdims=True)
    spoofs = clips["system"].fillna("unknown") if "system" in clips else "spoof"
    systems = np.where(clips["label"] == 1, "bona fide", spoofs)
    rows = []
    for system in ["bona fide", *sorted(set(systems) - {"bona fide"})]:
        of = systems == system
        rows.append((system, int(of.sum()), shares[:, of].sum(axis=1).mean(), excess(updates, shares[:, of].sum(1))))
    return pd.DataFrame(rows, columns=["system", "clips", "share", "excess"])


def describe_clips(updates: pd.DataFrame, clips: pd.DataFrame) -> dict[str, float]:
    """Compare the spread of the clips' shares of conflicting updates with that of conflicts drawn by chance.

    By chance means: the same number of conflicts in each epoch of each seed, in any of its updates.
    """
    counts = clip_counts(updates, len(clips))
    strata = updates.groupby(["seed", "epoch"]).ngroup().to_numpy()
    conflict = updates["conflict"].to_numpy(float)
    generator = np.random.default_rng(0)
    order = np.argsort(strata, kind="stable")

    def spread(conflict: np.ndarray) -> float:
        return float(np.std(conflict @ counts / counts.sum(axis=0)))

    by_chance = np.empty(N_PERMUTATIONS)
    for draw in range(N_PERMUTATIONS):
        shuffled = np.lexsort((generator.random(len(strata)), strata))
        permuted = np.empty_like(conflict)
        permuted[order] = conflict[shuffled]
        by_chance[draw] = spread(permuted)
    observed = spread(conflict)
    return {
        "clips": len(clips),
        "times": float(counts.sum(axis=0).mean()),
        "observed": observed,
        "chance": float(by_chance.mean()),
        "p": float((1 + np.sum(by_chance >= observed)) / (1 + N_PERMUTATIONS)),
    }


def describe_modules(updates: pd.DataFrame) -> pd.DataFrame:
    """Tell how often each module's gradients conflict in updates whose whole gradients do, and in others.

    Updates in which a module has no gradients, or none that are finite, do not count for it.
    """
    table = updates[["conflict", "module", "module_cosine"]].explode(["module", "module_cosine"])
    table["module_cosine"] = table["module_cosine"].astype(float)
    table = table.dropna().assign(within=lambda own: own["module_cosine"] < 0)
    shares = table.pivot_table("within", "module", "conflict", "mean", sort=False).reindex(columns=[True, False])
    names = list(dict.fromkeys(table["module"]))
    rows = [(name, *shares.loc[name].astype(float)) for name in names]
    return pd.DataFrame(rows, columns=["module", "conflicting", "other"])


def describe_losses(updates: pd.DataFrame) -> pd.DataFrame:
    """Compare losses and norms of conflicting updates with those of the others in their epoch and seed, as ratios."""
    names = {"loss": "loss", "grad_norm": "norm of the gradient"}
    rows = []
    for column, name in names.items():
        clean, augmented = (np.log(updates[f"{column}_{view}"]) for view in ("clean", "augmented"))
        values = {f"{name}, clean": clean, f"{name}, augmented": augmented, f"{name}, ratio": augmented - clean}
        for title, value in values.items():
            change = Estimate(*np.exp(excess(updates, value)))
            medians = [float(np.exp(value[updates["conflict"] == kind].median())) for kind in (True, False)]
            rows.append((title, *medians, change))
    return pd.DataFrame(rows, columns=["value", "conflicting", "other", "factor"])


def next_changes(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return each epoch's mean cosine, and the change of the validation loss from it to the next epoch."""
    table = epochs[epochs["method"] == DUAL_PATH].sort_values(["seed", "epoch"])
    change = table.groupby("seed")["eval_loss"].shift(-1) - table["eval_loss"]
    table = table[["seed", "epoch", "cosine_mean"]].assign(change=change).dropna()
    for column in ("cosine_mean", "change"):
        table[f"{column}_apart"] = table[column] - table.groupby("epoch")[column].transform("mean")
    return table


def describe_prediction(epochs: pd.DataFrame) -> dict[str, Estimate]:
    """Correlate an epoch's mean cosine with the change of the validation loss to the next (Spearman).

    "apart" is what remains of both without their mean over the seeds in the same epoch.
    """
    table = next_changes(epochs)
    seeds = sorted(table["seed"].unique())
    of_seed = {seed: table[table["seed"] == seed] for seed in seeds}
    generator = np.random.default_rng(0)
    draws = [pd.concat([of_seed[seed] for seed in generator.choice(seeds, len(seeds))]) for _ in range(N_DRAWS // 4)]
    result = {}
    for title, end in (("unadjusted", ""), ("apart from the epoch", "_apart")):
        columns = [f"cosine_mean{end}", f"change{end}"]
        values = [stats.spearmanr(*draw[columns].to_numpy().T).statistic for draw in draws]
        low, high = np.nanquantile(values, [0.025, 0.975])
        mean = float(stats.spearmanr(*table[columns].to_numpy().T).statistic)
        result[title] = Estimate(mean, float(low), float(high))
    return result


def print_page(tables: dict[str, Any], updates: pd.DataFrame) -> None:
    """Print all tables."""
    print("# Updates in which views conflict\n")
    few = " Those of few seeds are too narrow." if updates["seed"].nunique() < FEW_SEEDS else ""
    print(f"Made by `scripts/describe_conflicts.py`. Parentheses hold 95 % intervals over seeds.{few}\n")
    print(
        f"{len(updates):,} updates of {updates['seed'].nunique()} seeds without alignment; "
        f"{updates['conflict'].sum():,} of them conflict ({updates['conflict'].mean():.1%}), with a median cosine of "
        f"{updates['cosine'][updates['conflict']].median():.2f}.\n"
    )
    print("## Clips")
    print_table(
        ["system", "clips", "share of the clips of an update (%)", "more in conflicting updates (points)"],
        [[r.system, str(r.clips), f"{100 * r.share:.2f}", r.excess.text(100)] for r in tables["systems"].itertuples()],
    )
    clips = tables["clips"]
    print(
        f"\nEach of the {clips['clips']} clips was in {clips['times']:.0f} updates. The share of these that conflict "
        f"has a standard deviation over clips of {100 * clips['observed']:.2f} points. If conflicts fell on any "
        f"updates of the same epoch and seed, it would be {100 * clips['chance']:.2f} (p = {clips['p']:.3f}, "
        f"{N_PERMUTATIONS:,} permutations).\n"
    )
    print("## Losses and norms")
    print_table(
        ["value", "conflicting updates (median)", "others (median)", "factor in the same epoch and seed"],
        [[r.value, f"{r.conflicting:.3f}", f"{r.other:.3f}", r.factor.text()] for r in tables["losses"].itertuples()],
    )
    print("\n## Layers")
    print_table(
        ["module", "conflicts in conflicting updates (%)", "in others (%)"],
        [[r.module, f"{100 * r.conflicting:.1f}", f"{100 * r.other:.1f}"] for r in tables["modules"].itertuples()],
    )
    print("\n## Does an epoch's mean cosine predict the validation loss?\n")
    print("Spearman's correlation with the change of the validation loss to the next epoch:")
    print_table(["cosine and change", "correlation"], [[name, r.text()] for name, r in tables["prediction"].items()])


def draw_modules(modules: pd.DataFrame) -> Any:
    """Draw how often each module conflicts when the whole gradients do, and when they do not."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.24 * len(modules) + 0.9), layout="constrained")
    axis = figure.subplots()
    lines = np.arange(len(modules))
    axis.hlines(lines, 100 * modules["other"], 100 * modules["conflicting"], color=GRAY, linewidth=1)
    axis.plot(100 * modules["other"], lines, "o", color=BLUE, label="other updates")
    axis.plot(100 * modules["conflicting"], lines, "D", color=VERMILION, label="updates whose whole gradients conflict")
    axis.set_yticks(lines, [name.removeprefix("backbone.") for name in modules["module"]])
    axis.invert_yaxis()
    axis.set_xlabel("conflicts within the module (% of the updates)")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def draw_systems_and_prediction(systems: pd.DataFrame, epochs: pd.DataFrame) -> Any:
    """Draw which systems conflicting updates have more of, and cosines against the change of the validation loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    lines = np.arange(len(systems))
    means, lows, highs = (100 * np.array(column) for column in zip(*systems["excess"], strict=True))
    left.axvline(0, color=GRAY, linewidth=1)
    left.errorbar(means, lines, xerr=[means - lows, highs - means], fmt="D", color=BLUE, markersize=4)
    left.set_yticks(lines, systems["system"])
    left.invert_yaxis()
    left.set_xlabel("more in conflicting updates (points)")
    table = next_changes(epochs)
    shown = right.scatter(table["cosine_mean"], table["change"], c=table["epoch"], s=9, cmap="viridis")
    right.axhline(0, color=GRAY, linewidth=1)
    right.set_yscale("symlog", linthresh=0.1)
    right.set_yticks([-1, -0.1, 0, 0.1, 1], ["-1", "-0.1", "0", "0.1", "1"])
    right.set_xlabel("mean cosine of an epoch")
    right.set_ylabel("change of the validation loss to the next")
    figure.colorbar(shown, ax=right, label="epoch")
    return figure


if __name__ == "__main__":
    run_command(main)

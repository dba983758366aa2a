"""The views of a run, from what `--views` says."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_gradalign import augmentation as augmentations
from hf_gradalign import data

if TYPE_CHECKING:
    from hf_gradalign.augmentation.recipes import Augmentation

CLEAN = "clean"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def parse_views(text: str) -> dict[str, str]:
    """Read a list of views, such as `clean,augmented=rawboost4,codec,recipes/noise.yaml`.

    Args:
        text: Views with commas between them, each a recipe or `name=recipe`. A recipe is `clean` (the clip as it is),
            what `get_augmentation` takes by name, or the path of a YAML or JSON file. A view without a name is named
            after its recipe: `musan_rir_rawboost` after `musan_rir:/data/musan+rawboost`, a file without its folder and
            ending.

    Returns:
        Each view's recipe by name, in the order given. Whether files exist is not looked at.

    Raises:
        ValueError: If there is no view, one lacks its name or recipe, a name is unfit for the log or comes twice, or
            the view named `clean` is not.
    """
    views: list[tuple[str, str]] = []
    for part in text.split(","):
        name, is_named, recipe = (word.strip() for word in part.partition("="))
        if not is_named:
            name, recipe = _name_of(name), name
        if not recipe or (is_named and not name):
            known = ", ".join(augmentations.available_augmentations())
            raise ValueError(
                f"--views {text}: {part.strip()!r} is no view; give recipes with commas between them, each {CLEAN}, "
                f"one of {known}, or a YAML or JSON file; name=recipe names one"
            )
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"--views: {name!r} is no name for a view, which has letters, digits, '_', '-' and '.'; name it "
                f"yourself, as in noise={recipe}"
            )
        if name == CLEAN and recipe != CLEAN:
            raise ValueError(f"--views: the view named {CLEAN} is the clip as it is, not {recipe}; name it otherwise")
        views.append((name, recipe))
    _check_names([name for name, _ in views])
    return dict(views)


def build_views(views: Mapping[str, str]) -> dict[str, Augmentation | None]:
    """The transform of each view, None for the clip as it is.

    Args:
        views: Recipes by name, as `parse_views` gives them.

    Raises:
        ValueError: If a recipe is neither known nor a file that describes one.
    """
    transforms: dict[str, Augmentation | None] = {}
    for name, recipe in views.items():
        try:
            # After a comma or "=" the shell leaves ~ as it is.
            transforms[name] = None if recipe == CLEAN else augmentations.get_augmentation(os.path.expanduser(recipe))
        except ValueError as error:
            hint = "" if Path(recipe).exists() else f"; or {CLEAN}, the clip as it is"
            raise ValueError(f"view {name!r}: {error}{hint}") from error
    return transforms


def try_views(
    views: Mapping[str, Augmentation | None], sampling_rate: int, device: torch.device | str | None = None
) -> None:
    """Apply each transform of each view to a second of noise, and open the recordings that they draw from.

    Nothing is drawn from the global generators, and the transforms stay as they are.

    Args:
        views: From `build_views`.
        sampling_rate: In Hz.
        device: Where RawBoost is applied in batches; None where it is applied on the host.

    Raises:
        ValueError: If a package is missing, a recording cannot be read, or a transform fails.
    """
    from hf_gradalign.augmentation.preflight import try_augmentation

    for name, augmentation in views.items():
        if augmentation is None:
            continue
        try:
            with data.seeded_generators(np.random.SeedSequence(0)):
                try_augmentation(augmentation, sampling_rate, device)
        except ValueError as error:
            raise ValueError(f"view {name!r}: {error}") from error


def shown_recipe(recipe: str) -> str:
    """A recipe for others to read: where on this machine a file or a folder lies says nothing to them."""
    if recipe == CLEAN or not augmentations.recipe_name(recipe):
        return Path(recipe).name
    return "+".join(":".join(map(_shown_argument, part.split(":"))) for part in recipe.split("+"))


def _shown_argument(argument: str) -> str:
    return Path(argument).name if Path(argument).expanduser().is_dir() else argument


def shown_views(views: Mapping[str, str]) -> str:
    """Views as `--views` takes them, files without their folders."""
    return ",".join(
        shown_recipe(recipe) if name == _name_of(recipe) else f"{name}={shown_recipe(recipe)}"
        for name, recipe in views.items()
    )


def _name_of(recipe: str) -> str:
    known = augmentations.recipe_name(recipe)
    return Path(recipe).stem if recipe == CLEAN or known is None else known.replace("+", "_")


def _check_names(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"--views: two views are named {twice[0]}; name them apart, as in a={twice[0]},b={twice[0]}")
    # Views a, b_c, a_b and c; norm_ratio names the pairs the other way round.
    for names_of_pair in (names, names[::-1]):
        pairs = Counter("_".join(pair) for pair in combinations(names_of_pair, 2))
        same = [pair for pair, count in pairs.items() if count > 1]
        if same:
            raise ValueError(f"--views: {same[0]} in the log would mean two pairs of views; name them otherwise")

"""The named corpora, and how a corpus is written: `NAME`, `NAME:PATH`, `arena:NAME`, or anything else."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from hf_gradalign.data.corpora.arena import is_arena_folder
from hf_gradalign.data.corpora.arena_names import arena_repository, name_key
from hf_gradalign.data.corpora.asvspoof5 import ASVspoof5
from hf_gradalign.data.corpora.asvspoof2019 import ASVspoof2019LA, ASVspoof2019PA
from hf_gradalign.data.corpora.asvspoof2021 import ASVspoof2021DF, ASVspoof2021LA, ASVspoof2021PA
from hf_gradalign.data.corpora.fake_or_real import FakeOrReal
from hf_gradalign.data.corpora.in_the_wild import InTheWild
from hf_gradalign.data.corpora.layout import Layout
from hf_gradalign.data.corpora.mlaad import MLAAD
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.files_on_disk import as_on_disk

LAYOUTS: dict[str, Layout] = {
    kind.name: kind()
    for kind in (
        ASVspoof2019LA,
        ASVspoof2019PA,
        ASVspoof2021LA,
        ASVspoof2021DF,
        ASVspoof2021PA,
        ASVspoof5,
        InTheWild,
        FakeOrReal,
        MLAAD,
    )
}
"""Every corpus with a layout of its own, by name."""

DEMO = "demo"
ARENA = "arena"
CORPORA_FOLDER = "HF_GRADALIGN_CORPORA"
"""The environment variable with the folder in which named corpora without a path are looked for."""

_YEAR = re.compile(r"(?<!\d)20\d\d(?!\d)")
_TRACK = re.compile(r"(la|pa|df)$")


@dataclass(frozen=True)
class CorpusSpec:
    """What a corpus' name or path says.

    Attributes:
        text: as it was written.
        name: for people and for file names: the corpus' name, or the last part of its path.
        layout: the layout of a named corpus.
        path: where it is on disk, as written.
        hub_id: its repository, if it is on the Hub.
        is_arena: whether it has the Arena's form.
        is_demo: whether it is the demo corpus.
    """

    text: str
    name: str
    layout: Layout | None = None
    path: str | None = None
    hub_id: str | None = None
    is_arena: bool = False
    is_demo: bool = False


def available_corpora() -> list[str]:
    """The names that `load_corpus` knows."""
    return [DEMO, *LAYOUTS, f"{ARENA}:NAME"]


def parse_corpus(text: str | None, path: str | None = None) -> CorpusSpec:
    """Read `NAME[:PATH]`.

    Args:
        text: a name (case, hyphens, underscores and spaces do not matter), with or without a path after a colon;
            `arena:NAME`; a path; a Hub id; None for the demo corpus, or for `path`.
        path: the path, if it is not in `text`.

    Raises:
        CorpusError: if there are two paths, or a path where none can be.
    """
    if text is None:
        return CorpusSpec(DEMO, DEMO, is_demo=True) if path is None else parse_corpus(str(path))
    name, _, rest = text.partition(":")
    if rest and path is not None:
        raise CorpusError(f"{text} names a path, and path={path!r} another one; give one of them.")
    key = name_key(name)
    place = rest or (None if path is None else str(path))
    if key == DEMO:
        if place is not None:
            raise CorpusError("The demo corpus comes with the package and takes no path.")
        return CorpusSpec(text, DEMO, is_demo=True)
    if key == ARENA:
        return _arena(text, rest, path)
    layout = _BY_KEY.get(key)
    if layout is not None:
        return CorpusSpec(text, layout.name, layout=layout, path=place)
    if path is not None:
        raise CorpusError(f"{text!r} is no named corpus, which alone take a path.{did_you_mean(text)}")
    given = Path(text).expanduser()
    source = as_on_disk(given)
    is_on_hub = not source.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None
    name = unicodedata.normalize("NFC", source.stem if source.suffix else source.name)
    is_arena = is_arena_folder(source)
    place = text if source == given else str(source)
    return CorpusSpec(
        text, unicodedata.normalize("NFC", name), path=place, hub_id=text if is_on_hub else None, is_arena=is_arena
    )


def corpus_root(spec: CorpusSpec) -> Path:
    """The folder in which a named corpus is looked for.

    Raises:
        CorpusError: if no path is known, or it does not exist; the message says what to download and from where.
    """
    layout = spec.layout
    path = spec.path or os.environ.get(CORPORA_FOLDER)
    if path is None:
        raise CorpusError(
            f"{layout.title}: say where it is, as in {layout.name}:/data/{layout.name}. To get it: {layout.home}. "
            f"Its page, docs/corpora/{layout.page}, has the details; with all corpora in one folder, "
            f"{CORPORA_FOLDER} can name that folder."
        )
    root = as_on_disk(Path(path).expanduser())
    if not root.exists():
        source = "" if spec.path else f" (from {CORPORA_FOLDER})"
        raise CorpusError(f"{layout.title}: there is no {root}{source}. To get the corpus: {layout.home}.")
    return root


def did_you_mean(text: str) -> str:
    """A hint at a corpus' name that was perhaps meant, or nothing.

    Another year or another track is another corpus: of a year only the names that there are get listed.
    """
    name, colon, rest = text.partition(":")
    key = name_key(name)
    year = _YEAR.search(key)
    known = [*_BY_KEY, DEMO, ARENA]
    if year is not None:
        known = [other for other in known if year[0] in other]
        track = _TRACK.search(key)
        if known and track is not None and not any(other.endswith(track[0]) for other in known):
            return f" There are {' and '.join(dict.fromkeys(_BY_KEY[other].name for other in known))}."
        known = [other for other in known if track is None or other.endswith(track[0])]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    if not close:
        return ""
    layout = _BY_KEY.get(close[0])
    return f" Did you mean {layout.name if layout else close[0]}{colon}{rest}?"


def _arena(text: str, rest: str, path: str | None) -> CorpusSpec:
    name, _, place = rest.partition(":")
    if not name:
        raise CorpusError(f"{text}: name a data set of the Arena, as in arena:ASVspoof2019_LA, or arena:NAME:FOLDER.")
    if path is not None and place:
        raise CorpusError(f"{text} names a path, and path={path!r} another one; give one of them.")
    place = place or path
    if place is None and Path(name).expanduser().is_dir():
        place, name = name, Path(name).name  # a local folder in the Arena's form
    hub_id = None if place else arena_repository(name)
    shown = hub_id.partition("/")[2] if hub_id else name
    return CorpusSpec(text, shown, path=place and str(place), hub_id=hub_id, is_arena=True)


_BY_KEY = {name_key(name): layout for layout in LAYOUTS.values() for name in (layout.name, *layout.aliases)}

"""Scores a corpus into a score file: resumable, and with several processes if needed."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from datasets import Dataset
from tqdm.auto import tqdm
from transformers.utils import logging

from hf_gradalign.data import LABEL_NAMES, BadClip, CorpusError
from hf_gradalign.data.arrow import AudioColumn
from hf_gradalign.data.checking import OutOfRangeClips, silence_note
from hf_gradalign.data.columns import with_encoded_audio
from hf_gradalign.score_files.writing import read_score_file, score_file_text, write_bad_clips
from hf_gradalign.scoring.chunks import Chunk, ChunkDataset
from hf_gradalign.scoring.companions import bad_audio_file, remove_older_companions
from hf_gradalign.scoring.fingerprint import describe_scoring
from hf_gradalign.scoring.progress import START_OVER, ProgressStore, ScoredChunk, ScoredPart, begin, finite_or_none
from hf_gradalign.scoring.scorer import SpoofScorer
from hf_gradalign.utils.files import refuse_device, write_text_atomically
from hf_gradalign.utils.plain_text import stripped_text
from hf_gradalign.utils.shared_folder import require_shared_folder

logger = logging.get_logger(__name__)

# A crash of the machine can lose at most this much work.
_FLUSH_SECONDS = 10.0
# Finished processes wait for the slowest one, which may need hours.
_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class ScoringReport:
    """The result of scoring a corpus.

    Attributes:
        score_file: The score file.
        n_clips: The number of clips in the corpus.
        n_scored: The number of clips with a score.
        bad_clips: The clips without a score.
        was_complete: Whether the score file was already complete, with the same settings.
        out_of_range: A message about clips with samples outside [-1, 1]; None if there are none.
        silent_clips: The ids of clips in which all samples that the model gets are equal. Their scores say nothing
            about speech.
    """

    score_file: Path
    n_clips: int
    n_scored: int
    bad_clips: list[BadClip]
    was_complete: bool = False
    out_of_range: str | None = None
    silent_clips: list[str] = field(default_factory=list)

    @property
    def bad_audio_file(self) -> Path:
        """The file that lists the clips without a score. It exists only if there are any."""
        return bad_audio_file(self.score_file)


def process_state() -> PartialState:
    """Return Accelerate's process state, with a long timeout."""
    if PartialState._shared_state:
        return PartialState()
    # Without an accelerator, Accelerate finds the other processes only if `cpu` is set.
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=on_cpu, timeout=_TIMEOUT)


def score_corpus(
    scorer: SpoofScorer,
    dataset: Dataset,
    score_file: str | Path,
    *,
    columns: Sequence[str] = (),
    overwrite: bool = False,
    progress: bool = True,
) -> ScoringReport:
    """Score every clip of a corpus, and write `utterance_id score` per line, in the corpus' order.

    Resumable: interrupted runs produce byte-identical output. Progress is kept in the folder `<score_file>.partial`
    after every chunk of clips, and the same call continues from there, with any number of processes. The score file
    exists only when it is complete. `<stem>.json` next to it contains the settings, and `<stem>_bad_audio.tsv` lists
    clips that could not be scored, if any. With `accelerate launch` or `torchrun`, every process must make the same
    call. They work together, and no one else can write the same file at the same time.

    Args:
        scorer: The scorer.
        dataset: With the columns `audio` (not decoded) and `utterance_id`, as `load_corpus` returns it.
        score_file: The file to write.
        columns: Further columns of the data set for the score file, such as `label` and `system`. The file then has a
            header and tabs. If a complete score file has other columns or values, it is rewritten without scoring
            again.
        overwrite: Start over if there is a complete or partial score file. Old files are kept until the new ones are
            complete. Then the verdicts and timelines next to the old scores are deleted.
        progress: Whether to show a progress bar with rate and time left.

    Returns:
        The report, the same in every process.

    Raises:
        TypeError: If `dataset` is not a `datasets.Dataset`.
        CorpusError: If a column is missing or not allowed in a score file, or utterance ids are not unique.
        LockHeldError: If another process is writing the score file, or timelines next to it. The message says which
            process, and since when.
        ValueError: If there is a complete or partial score file with other settings and `overwrite` is not set; if a
            complete score file has lost or gained clips; if `<stem>.json` belongs to something else; if the score file
            is a folder or ends in `.json`; or if no clip can be scored.
        OSError: If the score file is a device or a pipe, or its folder is not the same for all processes.
    """
    score_file = Path(score_file)
    if score_file.suffix == ".json" or score_file.is_dir():
        raise ValueError(
            f"{score_file} cannot be the score file: give a name like scores.txt (its settings go to scores.json)"
        )
    refuse_device(score_file)
    state = process_state()
    require_shared_folder(score_file.parent)
    ids = _check_ids(dataset, columns)
    audio = with_encoded_audio(dataset.with_format(None).select_columns(["audio"]))
    settings_file = score_file.with_suffix(".json")
    store = ProgressStore(score_file.with_name(f"{score_file.name}.partial"))
    chunks = scorer.chunks(AudioColumn(audio))
    with ThreadPoolExecutor(1, "describe_scoring") as pool, ExitStack() as held:
        # This takes a second per GiB of weights. A new scoring has nothing to compare and begins in the meantime.
        settings = pool.submit(describe_scoring, scorer, ids, AudioColumn(audio))
        finished = _FinishedScores(score_file, ids, lambda: {name: _to_plain_values(dataset, name) for name in columns})
        error: ValueError | OSError | None = None
        is_complete = False
        if state.is_main_process:
            try:
                at_once = state.num_processes > 1
                is_complete = held.enter_context(
                    begin(score_file, store, settings, overwrite, at_once, finished.is_current)
                )
                if is_complete:
                    finished.rewrite_columns()
            except (ValueError, OSError) as problem:
                error = problem
        error, is_complete = broadcast_object_list([(error, is_complete)])[0]
        if error is not None:
            raise error
        if is_complete:
            return _log_report(finished.report, state)
        _score_pending(scorer, chunks, ids, store, settings, state, progress)
        state.wait_for_everyone()
        scored = _all_chunks(store, settings, len(chunks))
        scores: list[float | None] = [score for chunk in scored for score in chunk.scores]
        bad_clips, loud, silent = [], OutOfRangeClips(), []
        for chunk in scored:
            start = chunks.bounds(chunk.number)[0]
            for index, reason in sorted(chunk.bad.items()):
                path = (audio[start + index]["audio"] or {}).get("path")
                bad_clips.append(BadClip(ids[start + index], path, reason))
            for index, peak in sorted(chunk.loud.items()):
                loud.add(ids[start + index], peak)
            silent += [ids[start + index] for index in chunk.silent]
        counts = len(ids), len(ids) - len(bad_clips)
        report = ScoringReport(score_file, *counts, bad_clips, out_of_range=loud.note(len(ids)), silent_clips=silent)
        if report.n_scored == 0:
            listed = "\n".join(f"  {clip}" for clip in bad_clips[:20])
            raise ValueError(f"none of the {len(ids)} clips can be scored:\n{listed}")
        if state.is_main_process:
            kept = {name: score for name, score in zip(ids, scores, strict=True) if score is not None}
            text = finished.text(kept)
            content = {"settings": settings.result(), "report": {**asdict(report), "score_file": score_file.name}}
            if removed := remove_older_companions(score_file):
                logger.warning(f"Deleted, because they belong to older scores: {', '.join(map(str, removed))}.")
            # This replaces older files. As long as the store exists, it takes precedence (see `begin`).
            write_text_atomically(settings_file, json.dumps(content, indent=2) + "\n")
            write_bad_clips(report.bad_audio_file, bad_clips)
            # Last, because its existence means that everything is complete.
            write_text_atomically(score_file, text)
            store.remove()
        state.wait_for_everyone()
    return _log_report(report, state)


class _FinishedScores:
    """A complete score file, whose columns can be rewritten without scoring again.

    Args:
        score_file: The file.
        ids: The ids of the corpus' clips.
        columns: Function that returns the values of further columns for all clips.
    """

    def __init__(
        self, score_file: Path, ids: Sequence[str], columns: Callable[[], Mapping[str, Sequence[Any]]]
    ) -> None:
        self._score_file = score_file
        self._ids = ids
        self._columns = columns
        self._found_current = False

    @property
    def report(self) -> ScoringReport:
        """The report on the scoring."""
        report = json.loads(self._score_file.with_suffix(".json").read_text(encoding="utf-8"))["report"]
        bad = [BadClip(**clip) for clip in report["bad_clips"]]
        counts = report["n_clips"], report["n_scored"]
        notes = report.get("out_of_range"), report.get("silent_clips", [])
        return ScoringReport(self._score_file, *counts, bad, True, *notes)

    def text(self, scores: Mapping[str, float]) -> str:
        """Return the content of the file, given scores by id."""
        kept = [index for index, name in enumerate(self._ids) if name in scores]
        names = [self._ids[index] for index in kept]
        columns = {name: [values[index] for index in kept] for name, values in self._columns().items()}
        return score_file_text(names, [scores[name] for name in names], columns)

    def is_current(self) -> bool:
        """Return whether the columns agree with the corpus, and the list of bad audio exists if there is any."""
        report = self.report
        is_listed = not report.bad_clips or report.bad_audio_file.exists()
        self._found_current = is_listed and self._score_file.read_bytes() == self._current_text(report).encode()
        return self._found_current

    def rewrite_columns(self) -> None:
        """Rewrite the columns and the list of bad audio, unless `is_current` found them current."""
        if self._found_current:
            return
        report = self.report
        text = self._current_text(report)
        if self._score_file.read_bytes() != text.encode():
            write_text_atomically(self._score_file, text)
            logger.warning(f"{self._score_file}: the scores are kept, and the columns are updated from the corpus.")
        if report.bad_clips and not report.bad_audio_file.exists():
            write_bad_clips(report.bad_audio_file, report.bad_clips)

    def _current_text(self, report: ScoringReport) -> str:
        try:
            scores = read_score_file(self._score_file)
        except (ValueError, KeyError, TypeError):
            scores = {}
        if scores.keys() != {*self._ids} - {clip.utterance_id for clip in report.bad_clips}:
            raise ValueError(f"{self._score_file} no longer has the clips that were scored. {START_OVER}")
        return self.text(scores)


def _all_chunks(store: ProgressStore, settings: Future[dict[str, Any]], n_chunks: int) -> list[ScoredChunk]:
    scored = store.read(settings.result())
    if missing := n_chunks - len(scored):
        raise OSError(f"{store.folder} lost {missing} of {n_chunks} parts while being written: run the command again")
    return [scored[number] for number in range(n_chunks)]


def _log_report(report: ScoringReport, state: PartialState) -> ScoringReport:
    for note in (report.out_of_range, silence_note(report.silent_clips, report.n_clips)):
        if note and state.is_main_process:
            logger.warning(f"{note}.")
    return report


def _score_pending(
    scorer: SpoofScorer,
    chunks: ChunkDataset,
    ids: Sequence[str],
    store: ProgressStore,
    settings: Future[dict[str, Any]],
    state: PartialState,
    progress: bool,
) -> None:
    if state.is_main_process:
        # Includes files of an earlier run with more processes.
        for path in store.folder.glob("process-*.jsonl"):
            store.recover(int(path.stem.removeprefix("process-")))
    state.wait_for_everyone()
    done = store.read(settings.result()) if store.is_open else {}
    parts = store.read_parts(settings.result()) if store.is_open else {}
    pending = [number for number in range(len(chunks)) if number not in done]
    state.wait_for_everyone()  # all processes must read before any of them writes
    mine = pending[state.process_index :: state.num_processes]

    def n_clips(numbers: Sequence[int]) -> int:
        return sum(stop - start for start, stop in map(chunks.bounds, numbers))

    flushed = time.monotonic()
    held: list[ScoredChunk | ScoredPart] = []  # results wait until the settings are known and written

    def write(*scored: ScoredChunk | ScoredPart, wait: bool = False) -> None:
        nonlocal flushed
        held.extend(scored)
        if not store.is_open and (wait or settings.done()):
            store.open(settings.result())
        while held and store.is_open and (wait or settings.done()):
            store.append(state.process_index, held.pop(0), settings.result())
        if store.is_open and not held and time.monotonic() - flushed > _FLUSH_SECONDS:
            store.flush(state.process_index)
            flushed = time.monotonic()

    total = n_clips(range(len(chunks)))
    with tqdm(
        total=total,
        initial=total - n_clips(pending),
        unit="clip",
        desc="Scoring",
        disable=not (progress and state.is_main_process),
        smoothing=0.05,
    ) as bar:

        def note_part(piece: Chunk, part: ScoredPart) -> None:
            write(part)
            assert piece.progress is not None  # every piece but the last has one
            index, seconds, total = piece.progress
            of = "" if total is None else f" of {total / 60:.0f}"
            bar.set_postfix_str(f"{ids[chunks.bounds(piece.number)[0] + index]}: {seconds / 60:.0f}{of} min")

        mine_begun = {number: parts[number] for number in mine if number in parts}
        for position, (chunk, scores) in enumerate(scorer.score_chunks(chunks, mine, note_part, mine_begun)):
            bar.set_postfix_str("", refresh=False)
            write(ScoredChunk(chunk.number, finite_or_none(scores), chunk.bad, chunk.loud, sorted(chunk.silent)))
            # Assume that the other processes are about as fast.
            share = pending[position * state.num_processes : (position + 1) * state.num_processes]
            bar.update(n_clips(share))
    write(wait=True)


def _check_ids(dataset: Dataset, columns: Sequence[str]) -> list[str]:
    if not isinstance(dataset, Dataset):
        raise TypeError(f"dataset must be a datasets.Dataset, not {type(dataset).__name__}; load_corpus returns one.")
    missing = [name for name in ("audio", "utterance_id", *columns) if name not in dataset.column_names]
    if missing:
        raise CorpusError(
            f"the corpus has no column {', '.join(missing)}; its columns are {', '.join(dataset.column_names)}"
        )
    if reserved := {"audio", "utterance_id", "score"} & set(columns):
        raise CorpusError(f"{', '.join(sorted(reserved))} cannot be additional columns of a score file")
    if len(dataset) == 0:
        raise CorpusError("the corpus has no clips to score")
    ids = [str(name) for name in dataset["utterance_id"][:]]
    first: dict[str, int] = {}
    # Readers of score files strip ids.
    repeated = [
        (before, index)
        for index, name in enumerate(ids)
        if (before := first.setdefault(stripped_text(name), index)) != index
    ]
    if repeated:
        before, name = (ids[index] for index in repeated[0])
        names = repr(name) if name == before else f"{before!r} and {name!r}, which score files cannot tell apart"
        raise CorpusError(f"{len(repeated)} utterance ids are not unique, such as {names}: rename these clips")
    return ids


def _to_plain_values(dataset: Dataset, name: str) -> list[Any]:
    values = dataset[name][:]
    return [LABEL_NAMES[value] if value in (0, 1) else None for value in values] if name == "label" else values

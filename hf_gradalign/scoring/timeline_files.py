"""Writes timelines of a corpus to files: JSON Lines, RTTM and Audacity labels for each recording."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm

from hf_gradalign.data import BadAudioError, BadClip
from hf_gradalign.data.arrow import AudioColumn
from hf_gradalign.data.columns import with_encoded_audio
from hf_gradalign.score_files.matching import AUDIO_EXTENSION
from hf_gradalign.score_files.rttm import Turn, rttm_lines
from hf_gradalign.score_files.writing import write_bad_clips
from hf_gradalign.scoring.companions import TIMELINE_BAD_AUDIO, TIMELINE_SETTINGS, remove_recordings
from hf_gradalign.scoring.corpus_scoring import process_state
from hf_gradalign.scoring.fingerprint import describe_scoring
from hf_gradalign.scoring.progress import START_OVER, differences
from hf_gradalign.scoring.scorer import SpoofScorer
from hf_gradalign.scoring.timeline import Segment, Timeline, timeline_windows
from hf_gradalign.scoring.timeline_figure import draw_timeline
from hf_gradalign.scoring.verdict import DecisionRule
from hf_gradalign.utils.figure_style import save_figures
from hf_gradalign.utils.file_locks import hold_output
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.plain_text import one_line

_MAX_NAME = 80
# File names that Windows does not allow, with any extension.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


@dataclass(frozen=True)
class TimelineReport:
    """The result of writing timelines.

    Attributes:
        folder: The folder of the timelines.
        n_written: The number of recordings with a timeline.
        bad_clips: The recordings without a timeline.
    """

    folder: Path
    n_written: int
    bad_clips: list[BadClip]


def write_timelines(
    scorer: SpoofScorer,
    dataset: Dataset,
    folder: str | Path,
    *,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    share_encoder: bool = False,
    threshold: float | None = None,
    figures: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> TimelineReport:
    """Write the timeline of every recording of a corpus into a folder.

    Each recording gets a `.jsonl` file with a line per window (`utterance_id`, `start`, `end`, `score`), and an `.rttm`
    and a `.txt` file (labels for Audacity) with its segments. Files are named after the recordings, as far as possible.
    `timeline.json` contains the settings, and which files belong to which recording.

    Resumable: every file is written completely or not at all, with the `.jsonl` file last, and recordings that have a
    `.jsonl` file are skipped. With `torchrun` or `accelerate launch`, every process must make the same call.

    Args:
        scorer: The scorer.
        dataset: With the columns `audio` (not decoded) and `utterance_id`.
        folder: The folder, which is created.
        window_seconds: As for `SpoofScorer.timeline`.
        hop_seconds: As for `SpoofScorer.timeline`.
        share_encoder: As for `SpoofScorer.timeline`.
        threshold: As for `Timeline.segments`.
        figures: Whether to draw each timeline, as a `.png` file (matplotlib, the extra `plots`).
        overwrite: Start over if there are timelines.
        progress: Whether to show a progress bar.

    Returns:
        The report, the same in every process.

    Raises:
        LockHeldError: If another process is writing the folder.
        ValueError: If the folder has timelines with other settings and `overwrite` is not set, or an argument is out of
            range.
    """
    folder = Path(folder)
    length, hop = timeline_windows(scorer, window_seconds, hop_seconds)
    state = process_state()
    ids = [str(name) for name in dataset["utterance_id"][:]]
    audio = AudioColumn(with_encoded_audio(dataset.with_format(None).select_columns(["audio"])))
    names = file_names(ids)
    further: dict[str, Any] = {
        "timeline_window_samples": length,
        "timeline_hop_samples": hop,
        "share_encoder": share_encoder,
        "threshold": DecisionRule(scorer.calibration is not None).threshold if threshold is None else threshold,
    }
    settings = describe_scoring(scorer, ids, audio, **further)
    how: dict[str, Any] = {"window_seconds": window_seconds, "hop_seconds": hop_seconds, "share_encoder": share_encoder}
    bad: list[BadClip] = []
    with ExitStack() as held:
        if state.is_main_process:
            held.enter_context(hold_output(folder))
            _open_folder(folder, settings, dict(zip(names, ids, strict=True)), overwrite)
        state.wait_for_everyone()
        mine = range(state.process_index, len(ids), state.num_processes)
        hidden = not (progress and state.is_main_process)
        with tqdm(total=len(mine), unit="file", desc="Timelines", disable=hidden) as bar:
            for index in mine:
                bar.set_postfix_str(one_line(ids[index]), refresh=False)
                path = folder / f"{names[index]}.jsonl"

                def show(fraction: float, name: str = one_line(ids[index])) -> None:
                    bar.set_postfix_str(f"{name}: {fraction:.0%}")

                try:
                    if path.is_file():
                        timeline = read_timeline(path)
                    else:
                        timeline = scorer.timeline(audio[index], **how, progress=show)
                    if figures and not path.with_suffix(".png").is_file():
                        figure = draw_timeline(timeline, audio[index], threshold=threshold, title=ids[index])
                        save_figures({names[index]: figure}, folder, ["png"])
                    if not path.is_file():
                        _write(timeline, threshold, ids[index], path)
                except BadAudioError as error:
                    clip = audio[index] or {}
                    bad.append(BadClip(ids[index], clip.get("path"), error.bad_clips[0].reason))
                bar.update()
        bad = gather_object(bad)
        if state.is_main_process:
            write_bad_clips(folder / TIMELINE_BAD_AUDIO, bad)
        state.wait_for_everyone()
    return TimelineReport(folder, len(ids) - len(bad), bad)


def file_names(ids: Sequence[str]) -> list[str]:
    """Return a file name without suffix for each id: the id itself if every system allows it, otherwise with a digest.

    Names are distinct even on systems that ignore case.
    """
    names, taken = [], set()
    for name in ids:
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:_MAX_NAME].lstrip(".").rstrip(".")
        if not safe or safe != name or safe.lower() in taken or _RESERVED.match(safe):
            safe = f"_{safe}" if _RESERVED.match(safe) else safe
            safe = f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        taken.add(safe.lower())
        names.append(safe)
    return names


def read_timeline(path: str | Path) -> Timeline:
    """Read a timeline from a `.jsonl` file that `write_timelines` wrote. The file does not say what windows shared."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    starts, ends, scores = (
        np.array([row[name] for row in rows], dtype=np.float64) for name in ("start", "end", "score")
    )
    return Timeline(starts, ends, scores, float(ends[-1]), rows[0]["is_calibrated"])


def audacity_labels(segments: Iterable[Segment]) -> str:
    """Return segments as a label track of Audacity: start, end and text, separated by tabs."""
    return "".join(
        f"{segment.start:.6f}\t{segment.end:.6f}\t{segment.label} {segment.score:.2f}\n" for segment in segments
    )


def json_lines(timeline: Timeline, utterance_id: str) -> str:
    """Return windows as JSON Lines."""
    rows = zip(timeline.starts, timeline.ends, timeline.scores, strict=True)
    lines = [
        {
            "utterance_id": utterance_id,
            "start": round(float(start), 6),
            "end": round(float(end), 6),
            "score": round(float(score), 6),
            "is_calibrated": timeline.is_calibrated,
        }
        for start, end, score in rows
    ]
    # Non-ASCII characters are escaped, because some readers treat some of them as line ends (U+2028).
    return "".join(json.dumps(line) + "\n" for line in lines)


def _write(timeline: Timeline, threshold: float | None, utterance_id: str, path: Path) -> None:
    segments = timeline.segments(threshold)
    stem = re.sub(AUDIO_EXTENSION, "", PurePath(utterance_id).name) or utterance_id  # other dots are part of the name
    turns = [Turn(segment.start, segment.end, segment.label) for segment in segments]
    write_text_atomically(path.with_suffix(".rttm"), rttm_lines(stem, turns))
    write_text_atomically(path.with_suffix(".txt"), audacity_labels(segments))
    # Last, because its existence means that everything is complete.
    write_text_atomically(path, json_lines(timeline, utterance_id))


def _open_folder(folder: Path, settings: dict[str, Any], recordings: dict[str, str], overwrite: bool) -> None:
    """Begin to write a folder, or continue.

    Raises:
        ValueError: If the folder contains anything else.
    """
    path = folder / TIMELINE_SETTINGS
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        differing = differences(before["settings"], settings)
        if not differing and not overwrite:
            return
        if differing and not overwrite:
            raise ValueError(f"{folder} has timelines with other settings: {differing}. {START_OVER}")
        remove_recordings(folder)
    elif folder.is_dir() and any(file.name != ".DS_Store" for file in folder.iterdir()):  # macOS adds that file
        raise ValueError(
            f"{folder} has files but no {TIMELINE_SETTINGS}, so it is not a folder of timelines: choose another output"
        )
    folder.mkdir(parents=True, exist_ok=True)
    content = {"settings": settings, "recordings": recordings}
    write_text_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

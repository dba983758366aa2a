"""Score audio with a trained model: from clips or a corpus to countermeasure scores."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.score_files.writing import read_score_file, write_score_file
    from hf_gradalign.scoring.audio_files import list_audio_files
    from hf_gradalign.scoring.corpus_scoring import ScoringReport, process_state, score_corpus
    from hf_gradalign.scoring.model_loading import load_detector
    from hf_gradalign.scoring.scorer import SpoofScorer
    from hf_gradalign.scoring.timeline import ChangePoint, Segment, Timeline
    from hf_gradalign.scoring.timeline_figure import draw_timeline
    from hf_gradalign.scoring.timeline_files import TimelineReport, write_timelines
    from hf_gradalign.scoring.verdict import DecisionRule, Verdict, rule_for, write_verdicts
    from hf_gradalign.scoring.windowing import Windowing
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "ChangePoint",
    "DecisionRule",
    "ScoringReport",
    "Segment",
    "SpoofScorer",
    "Timeline",
    "TimelineReport",
    "Verdict",
    "Windowing",
    "draw_timeline",
    "list_audio_files",
    "load_detector",
    "process_state",
    "read_score_file",
    "rule_for",
    "score_corpus",
    "write_score_file",
    "write_timelines",
    "write_verdicts",
]

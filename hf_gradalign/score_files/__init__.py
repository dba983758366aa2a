"""Evaluation of score files from any system against any keys: tables, comparisons and figures."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.score_files.asv_scores import read_asv_error_rates
    from hf_gradalign.score_files.calibrating import CalibrationReport, calibrate_scores
    from hf_gradalign.score_files.clips import Clips, ScoreFileError
    from hf_gradalign.score_files.evaluation import compare_clips, evaluate_clips, metrics_of, problems_of
    from hf_gradalign.score_files.fusion import FusedSystem, Fusion, fit_fusion
    from hf_gradalign.score_files.fusion_application import (
        apply_fusion,
        require_same_scoring,
        require_same_systems,
        warn_if_outside,
    )
    from hf_gradalign.score_files.fusion_report import FusionReport, Rival, cross_validate_fusion
    from hf_gradalign.score_files.held_out import Folds, held_out_scores, make_folds
    from hf_gradalign.score_files.joint_scores import JointScores, join_systems, own_keys
    from hf_gradalign.score_files.key_reading import names_corpus, read_keys, read_keys_of_corpus
    from hf_gradalign.score_files.localization import (
        LocalizationEvaluation,
        Timelines,
        evaluate_localization,
        read_timelines,
    )
    from hf_gradalign.score_files.matching import match_keys, match_labels, match_systems, with_few_missing
    from hf_gradalign.score_files.predictions import require_same_form, unlabeled_scores, with_own_labels
    from hf_gradalign.score_files.report import (
        breakdown_table,
        comparison_table,
        describe_costs,
        describe_draws,
        described,
        draw_bars,
        draw_det,
        draw_histograms,
        draw_reliability,
        overall_table,
    )
    from hf_gradalign.score_files.results import Evaluation, MetricRow, Settings
    from hf_gradalign.score_files.score_reading import read_scores
    from hf_gradalign.score_files.segment_labels import SegmentLabels, read_segment_labels
    from hf_gradalign.score_files.trial_evaluation import evaluate_trials
    from hf_gradalign.score_files.writing import write_score_file
    from hf_gradalign.utils.figure_style import import_matplotlib, save_figures
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "CalibrationReport",
    "Clips",
    "Evaluation",
    "Folds",
    "FusedSystem",
    "Fusion",
    "FusionReport",
    "JointScores",
    "LocalizationEvaluation",
    "MetricRow",
    "Rival",
    "ScoreFileError",
    "SegmentLabels",
    "Settings",
    "Timelines",
    "apply_fusion",
    "breakdown_table",
    "calibrate_scores",
    "compare_clips",
    "comparison_table",
    "cross_validate_fusion",
    "describe_costs",
    "describe_draws",
    "described",
    "draw_bars",
    "draw_det",
    "draw_histograms",
    "draw_reliability",
    "evaluate_clips",
    "evaluate_localization",
    "evaluate_trials",
    "fit_fusion",
    "held_out_scores",
    "import_matplotlib",
    "join_systems",
    "make_folds",
    "match_keys",
    "match_labels",
    "match_systems",
    "metrics_of",
    "names_corpus",
    "overall_table",
    "own_keys",
    "problems_of",
    "read_asv_error_rates",
    "read_keys",
    "read_keys_of_corpus",
    "read_scores",
    "read_segment_labels",
    "read_timelines",
    "require_same_form",
    "require_same_scoring",
    "require_same_systems",
    "save_figures",
    "unlabeled_scores",
    "warn_if_outside",
    "with_few_missing",
    "with_own_labels",
    "write_score_file",
]

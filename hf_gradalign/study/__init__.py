"""Studies: a grid of training runs over settings and seeds, with tables and a report that compares them."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.study.definition import AXES, EvaluationSet, Study, StudyError, Trial
    from hf_gradalign.study.report import write_report
    from hf_gradalign.study.report_settings import ReportSettings
    from hf_gradalign.study.runner import StudyReport, StudyRunner
    from hf_gradalign.study.tables import StudyTables, rebuild_tables
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "AXES",
    "EvaluationSet",
    "ReportSettings",
    "Study",
    "StudyError",
    "StudyReport",
    "StudyRunner",
    "StudyTables",
    "Trial",
    "rebuild_tables",
    "write_report",
]

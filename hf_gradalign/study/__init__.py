"""Studies: many runs over a grid of settings and seeds, and what is to be learnt from them."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.study.cell import AXES, Cell
    from hf_gradalign.study.definition import EvaluationSet, Study
    from hf_gradalign.study.errors import StudyError
    from hf_gradalign.study.report import write_report
    from hf_gradalign.study.report_settings import ReportSettings
    from hf_gradalign.study.runner import StudyReport, StudyRunner
    from hf_gradalign.study.tables import StudyTables, rebuild_tables

__getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "AXES",
    "Cell",
    "EvaluationSet",
    "ReportSettings",
    "Study",
    "StudyError",
    "StudyReport",
    "StudyRunner",
    "StudyTables",
    "rebuild_tables",
    "write_report",
]

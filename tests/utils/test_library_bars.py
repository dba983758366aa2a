import datasets
import pytest
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging

from hf_gradalign.utils.library_bars import hide_library_bars


def enable_all():
    logging.enable_progress_bar()
    datasets.enable_progress_bars()
    enable_progress_bars()


@pytest.fixture(autouse=True)
def _bars():
    enable_all()  # a command that another test called may have hidden some
    yield
    enable_all()


def test_bars_of_loading_go_and_those_of_downloads_stay():
    hide_library_bars()
    assert not logging.is_progress_bar_enabled()
    assert datasets.are_progress_bars_disabled()
    assert not are_progress_bars_disabled()
    hide_library_bars(downloads=True)
    assert are_progress_bars_disabled()


def test_what_was_hidden_stays_hidden():
    disable_progress_bars()
    hide_library_bars()
    assert are_progress_bars_disabled()

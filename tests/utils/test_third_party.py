"""Progress bars, and torchaudio next to a CPU-only torch. Imports happen once, so each case has its own process."""

import sys
from types import ModuleType

import datasets
import forked_python
import pytest
import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging

from hf_gradalign.utils.third_party import TORCHAUDIO_LOADER, allow_missing_extension, hide_library_bars

IMPORTS = {
    "evaluate": "import evaluate",
    "transformers": "from transformers import Wav2Vec2ForSequenceClassification, Trainer, pipeline",
    "resample": "import torch, torchaudio; torchaudio.functional.resample(torch.zeros(800), 8000, 16000)",
}


def run(program):
    return forked_python.run([sys.executable, "-c", program])


@pytest.mark.parametrize(
    "name",
    [
        "resample",
        pytest.param("transformers", marks=pytest.mark.slow),
        pytest.param("evaluate", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_works_after_hf_gradalign(name):
    result = run(f"import hf_gradalign; {IMPORTS[name]}")
    assert result.returncode == 0, result.stderr


def stand_in(error=None):
    """The loader of torchaudio with an extension that loads, or fails with an error."""
    loader = ModuleType(TORCHAUDIO_LOADER)

    def load(lib):
        if error is not None:
            raise error
        return f"{lib} is loaded"

    loader._load_lib = load
    allow_missing_extension(loader)
    return loader._load_lib


def test_an_extension_that_loads_is_loaded():
    assert stand_in()("_torchaudio") == "_torchaudio is loaded"


def test_an_extension_for_cuda_is_left_out_without_cuda(monkeypatch):
    load = stand_in(OSError("libc10_cuda.so: cannot open shared object file"))
    monkeypatch.setattr(torch.version, "cuda", None)
    assert load("_torchaudio") is False
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(OSError, match=r"libc10_cuda\.so"):
        load("_torchaudio")


@pytest.mark.slow
def test_works_after_an_import_that_failed():
    failed = "try:\n    import torchaudio\nexcept OSError:\n    pass\n"
    result = run(f"{failed}import hf_gradalign; {IMPORTS['resample']}")
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_missing_torchaudio_is_no_error():
    result = run("import sys; sys.modules['torchaudio'] = None; import hf_gradalign")
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(torch.version.cuda is not None, reason="looks at what is done without CUDA")
@pytest.mark.slow
def test_a_torch_with_cuda_keeps_its_error():
    program = """
import sys
import torch
torch.version.cuda = "13.0"
import hf_gradalign, transformers
is_imported = "torchaudio" in sys.modules
try:
    import torchaudio
    assert is_imported  # its extension does load
except OSError:
    assert not is_imported
"""
    result = run(program)
    assert result.returncode == 0, result.stderr


def show_all_bars():
    logging.enable_progress_bar()
    datasets.enable_progress_bars()
    enable_progress_bars()


@pytest.fixture
def bars():
    show_all_bars()  # other tests may have hidden some
    yield
    show_all_bars()


@pytest.mark.usefixtures("bars")
def test_bars_of_loading_are_hidden_and_those_of_downloads_stay():
    hide_library_bars()
    assert not logging.is_progress_bar_enabled()
    assert datasets.are_progress_bars_disabled()
    assert not are_progress_bars_disabled()
    hide_library_bars(downloads=True)
    assert are_progress_bars_disabled()


@pytest.mark.usefixtures("bars")
def test_what_was_hidden_stays_hidden():
    disable_progress_bars()
    hide_library_bars()
    assert are_progress_bars_disabled()

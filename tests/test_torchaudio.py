"""torchaudio beside a CPU-only torch; each case in a process of its own, since imports happen once."""

import sys

import forked_python
import pytest
import torch

IMPORTS = {
    "evaluate": "import evaluate",
    "transformers": "from transformers import Wav2Vec2ForSequenceClassification, Trainer, pipeline",
    "resample": "import torch, torchaudio; torchaudio.functional.resample(torch.zeros(800), 8000, 16000)",
}


def run(program):
    return forked_python.run([sys.executable, "-c", program])


@pytest.mark.parametrize(
    "name", ["resample", *(pytest.param(n, marks=pytest.mark.slow) for n in IMPORTS if n != "resample")]
)
def test_works_after_hf_gradalign(name):
    result = run(f"import hf_gradalign; {IMPORTS[name]}")
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_leaves_a_working_torchaudio_alone():
    plain = run("import torchaudio, sys; print(sys.modules['torchaudio._extension.utils'].__file__)")
    ours = run("import hf_gradalign, sys; print(getattr(sys.modules['torchaudio._extension.utils'], '__file__', None))")
    assert ours.returncode == 0, ours.stderr
    if plain.returncode == 0:
        assert ours.stdout == plain.stdout
    else:
        assert ours.stdout == "None\n"


@pytest.mark.slow
def test_missing_torchaudio_is_no_error():
    result = run("import sys; sys.modules['torchaudio'] = None; import hf_gradalign")
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(torch.version.cuda is not None, reason="looks at what is done without CUDA")
def test_a_torch_with_cuda_keeps_its_error():
    program = "import torch; torch.version.cuda = '13.0'; import hf_gradalign, sys; print('torchaudio' in sys.modules)"
    result = run(program)
    assert result.returncode == 0, result.stderr
    if run("import torchaudio").returncode != 0:
        assert result.stdout == "False\n"

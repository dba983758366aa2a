"""What imports bring along, in fresh processes: modules and not seconds, which depend on the machine."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import forked_python
import pytest

import hf_gradalign
from hf_gradalign.cli import main as cli
from hf_gradalign.utils import messages

PACKAGE = Path(hf_gradalign.__file__).parent
TORCH = {"torch", "torchaudio"}
HEAVY = {
    *(*TORCH, "transformers", "accelerate", "datasets", "evaluate", "peft", "scipy", "pyarrow", "pandas", "librosa"),
    "gradio",
}
LIGHT = {
    "import hf_gradalign": HEAVY | {"numpy", "huggingface_hub"},
    "import hf_gradalign.alignment; hf_gradalign.alignment.get_method('pcgrad')": HEAVY - {"torch"},
    "import hf_gradalign.metrics; hf_gradalign.metrics.equal_error_rate([0.1, 0.9], [0, 1])": HEAVY,
    "from hf_gradalign.utils.hub_waits import limit_hub_waits; limit_hub_waits()": HEAVY,
    **{
        f"import hf_gradalign.{name}": HEAVY | {"numpy"}
        for name in (
            *("augmentation", "conversion", "data", "demo", "experiment", "export", "hub.arena", "scoring"),
            "training",
        )
    },
}

SCRIPTS = PACKAGE.parent / "scripts"
COMMANDS = (
    *("convert_checkpoint", "evaluate_scores", "export_onnx", "plot_conflicts", "report_study", "run_study"),
    *("score_audio_spoof", "write_arena_results", "write_model_cards", "list_detectors", "write_detectors_page"),
)
# The parser of a run needs transformers' TrainingArguments, which bring much along.
OF_WORK = {
    *(
        "audiomentations",
        "hf_gradalign.augmentation.rawboost",
        "hf_gradalign.data.loading",
        "hf_gradalign.hub.publishing",
    ),
    *("datasets", "hf_gradalign.scoring.scorer", "hf_gradalign.training.trainer", "transformers.trainer"),
}

# Runs each program in a fork of a process that has imported nothing yet.
FORKS = """
import json, os, sys
NAMES = json.loads(sys.argv[2])
for program in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            exec(program, {"__name__": "__main__"})
        except SystemExit:
            pass
        found = NAMES
        os.write(writing, json.dumps([name for name in found if name in sys.modules]).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    print(os.read(reading, 10_000).decode() or "null")
"""


def imported_by(programs):
    """Which of the heavy packages each program has imported at its end; None if it failed."""
    names = json.dumps(sorted(HEAVY | OF_WORK | {"numpy", "huggingface_hub"}))
    words = [sys.executable, "-c", FORKS, json.dumps(programs), names]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert None not in found, done.stderr
    return dict(zip(programs, map(set, found), strict=True))


def test_packages_import_what_they_need_alone():
    found = imported_by(list(LIGHT))
    assert {program: sorted(found[program] & LIGHT[program]) for program in LIGHT} == {program: [] for program in LIGHT}


def command(name, *words):
    return (
        f"import runpy, sys; sys.argv[:0] = [{str(SCRIPTS / name)!r} + '.py', *{words!r}]; "
        f"sys.path.insert(0, {str(SCRIPTS)!r}); del sys.argv[{len(words) + 1}:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )


def test_help_and_mistakes_import_nothing_heavy():
    programs = [command(name, word) for name in COMMANDS for word in ("--help", "--unknown")]
    without_script = [name for name in cli.COMMANDS if name not in messages.SCRIPTS]
    programs += [
        f"from hf_gradalign.cli.main import main; main([{name!r}, {word!r}])"
        for name in without_script
        for word in ("--help", "--unknown")
    ]
    found = imported_by(programs)
    assert set().union(*found.values()) <= {"numpy"}


def test_help_of_a_run_imports_what_its_parser_needs():
    # The process that is forked has imported torch and the like, and nothing of what is asked for here.
    names = sorted({"transformers", *OF_WORK})
    shows = f"atexit.register(lambda: print(json.dumps([name for name in {names} if name in sys.modules])))"
    program = f"import atexit, json, sys\n{shows}\n{command('run_audio_spoof', '--help')}"
    done = forked_python.run([sys.executable, "-c", program])
    assert json.loads(done.stdout.splitlines()[-1]) == ["transformers"], done.stderr


def test_names_of_the_top_level():
    names = (
        *("GradientAlignmentArguments", "GradientAlignmentTrainer", "RawBoost", "SpoofScorer"),
        *("load_corpus", "load_detector"),
    )
    assert [getattr(hf_gradalign, name).__name__ for name in names] == list(names)
    assert {*names, "__version__"} == set(hf_gradalign.__all__) <= set(dir(hf_gradalign))
    assert hf_gradalign.models.HEADS
    with pytest.raises(AttributeError, match="module 'hf_gradalign' has no attribute 'Rawboost'"):
        hf_gradalign.Rawboost  # noqa: B018
    with pytest.raises(ImportError, match=r"cannot import name 'nothing' from 'hf_gradalign\.data'"):
        from hf_gradalign.data import nothing  # noqa: F401


def lazy_packages():
    return [path.parent for path in PACKAGE.rglob("__init__.py") if "lazy_names(__name__)" in path.read_text()]


@pytest.mark.parametrize("folder", lazy_packages(), ids=lambda folder: folder.name)
def test_lazy_names_are_all_there_and_hide_no_module(folder):
    name = ".".join(folder.relative_to(PACKAGE.parent).parts)
    package = sys.modules.get(name) or __import__(name, fromlist=["x"])
    assert {one for one in package.__all__ if getattr(package, one) is not None} == set(package.__all__)
    block = next(node for node in ast.parse((folder / "__init__.py").read_text()).body if isinstance(node, ast.If))
    homes = {alias.name for node in block.body for alias in node.names}
    assert homes <= set(package.__all__)
    # Type checkers would take any name, also a misspelled one, of a package where they see a __getattr__.
    assert ["__getattr__" in ast.unparse(node) for node in block.orelse] == [True]
    assert not homes & {path.stem for path in folder.iterdir()}


MODEL = """
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification, pipeline
import sys
assert "hf_gradalign" in sys.modules
folder = sys.argv[3]
assert type(AutoConfig.from_pretrained(folder)).__module__.startswith("hf_gradalign.models.")
assert type(AutoFeatureExtractor.from_pretrained(folder)).__module__.startswith("hf_gradalign.models.")
model = AutoModelForAudioClassification.from_pretrained(folder)
assert type(model).__module__.startswith("hf_gradalign.models.") and model._auto_class
import numpy
assert len(pipeline("audio-classification", model=folder)(numpy.zeros(3200, "float32"))) == 2
"""
ORDERS = {
    "ours alone": "import hf_gradalign",
    "transformers first": "import transformers, hf_gradalign",
    "an Auto class first": "from transformers import AutoConfig; import hf_gradalign",
    "a part of ours alone": "import hf_gradalign.alignment",
    "the models' file": "import hf_gradalign.models.modeling_spoof_detector",
    "a pickle": "import pickle; pickle.loads(b'chf_gradalign.models\\nSpoofDetectorConfig\\n.')",
    "the trainer": "from hf_gradalign import GradientAlignmentTrainer",
    "between": "import hf_gradalign; from transformers import Trainer, Wav2Vec2Model",
    "a bare module": "import hf_gradalign, transformers.models.auto.configuration_auto",
    "no torchaudio": "import sys; sys.modules['torchaudio'] = None; import hf_gradalign",
}


SLOW_ORDERS = ("transformers first", "a pickle")


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(name, marks=[pytest.mark.slow, *([] if name in SLOW_ORDERS else [pytest.mark.long])])
        if name != "ours alone"
        else name
        for name in ORDERS
    ],
)
def test_the_auto_classes_know_the_detectors(order, tmp_path):
    from tiny_detectors import make_detector

    model = make_detector()
    model.save_pretrained(tmp_path)
    model.make_feature_extractor().save_pretrained(tmp_path)
    words = [sys.executable, "-c", f"{ORDERS[order]}\n{MODEL}", "-", "-", str(tmp_path)]
    done = forked_python.run(words)
    assert done.returncode == 0, done.stderr


def test_tests_are_collected_without_optional_packages():
    """Tests import them by `pytest.importorskip`: at the top of a file, or where they are needed."""
    optional = (
        *("G722", "gradio", "latex2mathml", "matplotlib", "onnx", "onnxruntime", "onnxscript", "optuna", "peft"),
        *("playwright", "tensorboard", "torchjd", "trackio", "triton"),
    )
    imports = re.compile(rf"^(?:import|from) (?:{'|'.join(optional)})\b", re.MULTILINE)
    files = Path(__file__).parent.rglob("*.py")
    assert not [str(path) for path in files if imports.search(path.read_text(encoding="utf-8"))]

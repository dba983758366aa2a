import importlib
import importlib.util
from pathlib import Path

import datasets
import pytest
from matplotlib.figure import Figure

from hf_gradalign.training.conflicts import figures as conflict_plots
from hf_gradalign.utils import messages

SCRIPTS = Path(__file__).parents[2] / "scripts"
COMMANDS = {script.removesuffix(".py"): name.replace("-", "_") for name, script in messages.SCRIPTS.items()}

# A run of seconds: two updates of four short windows.
QUICK = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "max_train_samples": 16,
    "max_eval_samples": 12,
    "window_seconds": 0.5,
    "eval_window_seconds": 0.5,
    "disable_tqdm": True,
}


@pytest.fixture(scope="session", autouse=True)
def _private_datasets_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache"))
        yield


@pytest.fixture
def load_script(monkeypatch):
    """Import a script, which is not in a package, with what lies beside it."""
    monkeypatch.syspath_prepend(SCRIPTS)

    def load(name):
        if name in COMMANDS:
            return importlib.import_module(f"hf_gradalign.cli.{COMMANDS[name]}")
        specification = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def quick_options():
    def options(**changes):
        words = []
        for name, value in {**QUICK, **changes}.items():
            words.append(f"--{name}")
            words += [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]
        return words

    return options


@pytest.fixture
def run_script(load_script, quick_options):
    """Run run_audio_spoof.py in this process with a quick run's options; gives its exit status.

    The figures of its card are empty, which takes a quarter off its time, until `run_script.draw_figures()` is called.
    """
    script = load_script("run_audio_spoof")

    def run(*words, **changes):
        return script.main([*words, *quick_options(**changes)])

    run.script = script
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_overview", "draw_modules"):
            patch.setattr(conflict_plots, name, lambda history: Figure((1, 1)))
        run.draw_figures = patch.undo
        yield run

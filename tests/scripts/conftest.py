import functools
import importlib
import importlib.util
import io
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from hf_gradalign.data import demo_corpus_files
from hf_gradalign.data.readers import source
from hf_gradalign.models import loading, small_wav2vec2_config
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
NARROW = {
    "conv_dim": (8, 8, 8, 8, 8),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
}


@pytest.fixture(scope="session", autouse=True)
def _private_datasets_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache"))
        yield


@pytest.fixture
def load_script(monkeypatch):
    """Import a script, which is not in a package, so that it finds the modules next to it."""
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


@pytest.fixture(scope="session")
def short_demo_corpus(tmp_path_factory):
    """The demo corpus with fewer and shorter clips, in FLAC: decoding Opus took half of a quick run."""
    folder = tmp_path_factory.mktemp("demo_corpus")
    for split, path in demo_corpus_files().items():
        table = parquet.read_table(path)
        labels = table["label"].to_numpy()
        classes = [np.flatnonzero(labels == label) for label in (0, 1)]
        table = table.take(np.sort([each[np.linspace(0, len(each) - 1, 16, dtype=int)] for each in classes], axis=None))
        clips = []
        for audio in table["audio"].to_pylist():
            samples, rate = soundfile.read(io.BytesIO(audio["bytes"]), frames=12_800)
            content = io.BytesIO()
            soundfile.write(content, samples, rate, format="FLAC")
            clips.append({"bytes": content.getvalue(), "path": audio["path"].replace(".ogg", ".flac")})
        field = table.schema.field("audio")
        table = table.set_column(table.schema.get_field_index("audio"), field, pa.array(clips, field.type))
        parquet.write_table(table, folder / f"{split}.parquet")
    return folder


def _draw_nothing(history):
    from matplotlib.figure import Figure

    return Figure((1, 1))


@pytest.fixture
def run_script(load_script, quick_options, short_demo_corpus):
    """Run run_audio_spoof.py in this process with a quick run's options, and return its exit status.

    Without a corpus it trains on `short_demo_corpus`, and without a model a narrow one of as many frames, until
    `run_script.use_default_model()` is called. The figures of its card are empty until `run_script.draw_figures()`
    is called. Each of the two saves a third of a run's time.
    """
    script = load_script("run_audio_spoof")

    def run(*words, **changes):
        return script.main([*words, *quick_options(**changes)])

    run.script = script
    context = pytest.MonkeyPatch.context
    with context() as patch, context() as model, context() as figures:
        patch.setattr(source, "_DEMO_FOLDER", short_demo_corpus)
        model.setattr(loading, "small_wav2vec2_config", functools.partial(small_wav2vec2_config, **NARROW))
        run.use_default_model = model.undo
        for name in ("draw_overview", "draw_modules"):
            figures.setattr(conflict_plots, name, _draw_nothing)
        run.draw_figures = figures.undo
        yield run


@pytest.fixture(scope="session")
def _finished_run(tmp_path_factory):
    return tmp_path_factory.mktemp("finished_run") / "out"


@pytest.fixture
def finished_run(run_script, _finished_run, tmp_path):
    """A copy, in `finished`, of the folder of a quick run with `--align_gradients`."""
    if not _finished_run.exists():
        assert run_script("--align_gradients", output_dir=_finished_run) == 0
    return Path(shutil.copytree(_finished_run, tmp_path / "finished"))


@pytest.fixture
def stop_before_training(monkeypatch):
    """Let runs end with status 1 where training would begin: after all checks, with the arguments kept."""

    def stop(*args, **options):
        raise FloatingPointError("stopped before training")

    monkeypatch.setattr("hf_gradalign.experiment.runner.train_and_evaluate", stop)
    return 1

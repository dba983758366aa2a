"""The main job in separate processes: Ctrl-C and resume, two processes, and the Hub."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked_group
import forked_python
import pytest
import torch
from hub_server import REFUSED_TOKEN
from safetensors.torch import load_file
from transformers import AutoModelForAudioClassification

from hf_gradalign.cli import train
from hf_gradalign.training.conflicts import figures as conflict_figures

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_audio_spoof.py"
FSDP_ON_CPU = Path(__file__).parents[1] / "helpers" / "fsdp_on_cpu.py"
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*words, launcher=(), environment=ONE_THREAD):
    command = [sys.executable, *map(str, launcher), str(SCRIPT), *words]
    return forked_python.run(command, environment)


def assert_same_weights(first, second):
    weights = load_file(first / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in load_file(second / "model.safetensors").items())


@pytest.mark.long
@pytest.mark.slow
def test_ctrl_c_and_again(quick_options, tmp_path):
    options = {"max_steps": 30, "logging_steps": 1, "dataloader_num_workers": 2}
    whole = quick_options(**options, output_dir=tmp_path / "whole")
    assert run("--align_gradients", "gradvac", *whole).returncode == 0

    words = ["--align_gradients", "gradvac", *quick_options(**options, output_dir=tmp_path / "parts")]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *words],
            env={**ONE_THREAD, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while "'loss'" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the loader's workers too
        assert process.wait(60) == 130
    printed = log.read_text()
    assert "saving a checkpoint after this update" in printed
    assert "--resume_from_checkpoint" in printed
    assert not (tmp_path / "parts" / "all_results.json").exists()
    [checkpoint] = (tmp_path / "parts").glob("checkpoint-*")
    assert int(checkpoint.name.removeprefix("checkpoint-")) < 30

    again = run(*words, "--resume_from_checkpoint")
    assert again.returncode == 0, again.stderr
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    results = [json.loads((tmp_path / name / "all_results.json").read_text()) for name in ("whole", "parts")]
    for name in ("eval_eer", "test_eer", "train_conflict_rate", "train_conflict_rate_by_epoch"):
        assert results[0][name] == results[1][name]


def draw_nothing(history):
    from matplotlib.figure import Figure

    return Figure((1, 1))


def run_main(words):
    conflict_figures.draw_overview = conflict_figures.draw_modules = draw_nothing  # drawing is slow
    assert train.main(words) == 0


@pytest.mark.slow
def test_two_processes(quick_options, short_demo_corpus, tmp_path):
    log = tmp_path / "log"
    parallel = {"use_cpu": True, "ddp_backend": "gloo", "max_eval_samples": 11}
    options = quick_options(output_dir=tmp_path / "out", dataset_name=short_demo_corpus, **parallel)
    process = forked_group.start(run_main, ["--align_gradients", *options], log=log, processes=2)
    process.join(200)
    assert process.exitcode == 0, log.read_text()
    results = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert 0 <= results["eval_eer"] <= 1
    assert len((tmp_path / "out" / "scores_test.txt").read_text().splitlines()) == 11


LOAD_AND_SCORE = """
import json, sys
import hf_gradalign
import numpy, torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline
name, samples = sys.argv[1], numpy.load(sys.argv[2])
model = AutoModelForAudioClassification.from_pretrained(name)
inputs = AutoFeatureExtractor.from_pretrained(name)(samples, sampling_rate=16000, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits[0].tolist()
answers = pipeline("audio-classification", model=name)(
    {"array": samples, "sampling_rate": 16000}, function_to_apply="none"
)
print(json.dumps([logits, [dict((a["label"], a["score"]) for a in answers)[n] for n in ("spoof", "bonafide")]]))
"""


@pytest.mark.long
@pytest.mark.slow
def test_published_model_loads_elsewhere(hub, quick_options, tmp_path):
    out = tmp_path / "out"
    words = ["--push_to_hub", "--hub_model_id", "tester/detector", *quick_options(output_dir=out)]
    pushed = run("--align_gradients", *words, environment=hub.environment(tmp_path / "home"))
    assert pushed.returncode == 0, pushed.stderr
    assert "tester/detector" in pushed.stdout
    files = set(hub.repos["tester/detector"].files)
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md", "all_results.json"} <= files
    assert {"conflicts.jsonl", "figures/conflicts.png"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth")) or name.startswith("checkpoint-")]

    samples = tmp_path / "samples.npy"
    import numpy as np

    np.save(samples, np.random.default_rng(0).standard_normal(16_000).astype(np.float32))
    answers = []
    for name, home in (("tester/detector", "elsewhere"), (str(out), "here")):
        command = [sys.executable, "-c", LOAD_AND_SCORE, name, samples]
        done = forked_python.run(command, hub.environment(tmp_path / home, token=None))
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    (hub_logits, hub_scores), (logits, _) = answers
    assert hub_logits == pytest.approx(logits, abs=1e-5)
    assert hub_scores == pytest.approx(logits, abs=1e-5)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param("network", marks=pytest.mark.slow),
        pytest.param("token", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_trouble_with_the_hub_costs_no_model(hub, quick_options, short_demo_corpus, tmp_path, trouble):
    if trouble == "network":
        environment = {**hub.environment(tmp_path / "home"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    else:
        environment = hub.environment(tmp_path / "home", REFUSED_TOKEN)
    out = tmp_path / "out"
    options = quick_options(output_dir=out, dataset_name=short_demo_corpus)
    words = ["--push_to_hub", "--hub_model_id", "tester/detector", *options]
    result = run("--align_gradients", *words, environment=environment)
    assert result.returncode == 1
    assert "Training continues" in result.stderr
    assert ("does not answer" if trouble == "network" else "refused the access token") in result.stderr
    assert f"hf upload tester/detector {out}" in result.stderr
    assert (out / "model.safetensors").is_file()
    assert (out / "README.md").is_file()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fsdp2_and_again(quick_options, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(FSDP_ON_CPU)]
    options = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    options |= {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "ddp_backend": "gloo"}
    words = quick_options(**options, output_dir=tmp_path)
    first = run("--align_gradients", "gradvac", "--fsdp", *words, launcher=launcher)
    assert first.returncode == 0, first.stderr
    assert json.loads((tmp_path / "all_results.json").read_text())["averaged_checkpoints"] == 2
    (tmp_path / "whole").mkdir()
    (tmp_path / "model.safetensors").rename(tmp_path / "whole" / "model.safetensors")
    shutil.rmtree(tmp_path / "checkpoint-4")

    again = run("--resume_from_checkpoint", str(tmp_path), launcher=launcher)
    assert again.returncode == 0, again.stderr
    assert_same_weights(tmp_path / "whole", tmp_path)
    model = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())

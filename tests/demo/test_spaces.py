"""The page as a Space: its files, and pushing them to a local Hub."""

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from importlib.metadata import requires
from pathlib import Path

import pytest
import space_hub  # noqa: F401  adds its routes to the Hub
import torch
import yaml
from hub_server import StoredFile
from safetensors.torch import load_file

import hf_gradalign
from hf_gradalign.demo.spaces import write_space
from hf_gradalign.hub import PublishingError

pytest.importorskip("gradio")  # whose version a Space names

PUSH = """
import json
from hf_gradalign.demo import push_space
from hf_gradalign.hub import PublishingError
urls = []
for models, repo_id, options in json.loads(args[0]):
    try:
        urls.append(push_space(models, repo_id, **options))
    except PublishingError as error:
        urls.append(str(error))
report(urls)
"""


@pytest.fixture(scope="module")
def folder(scorer, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "my-run"
    scorer.model.save_pretrained(path)
    scorer.feature_extractor.save_pretrained(path)
    (path / "README.md").write_text(f"---\nlicense: mit\n---\n# Mine\nTrained in {path}\n")
    (path / "training_args.bin").write_bytes(b"a pickle")
    return path


def written(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_space_holds(folder, tmp_path):
    options = {"max_mb": 5, "p_spoof": 0.5}
    write_space(tmp_path, [folder, "someone/detector"], title="my-demo", token="secret", **options)
    files = written(tmp_path)
    front_matter = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert front_matter["sdk"] == "gradio"
    assert front_matter["app_file"] == "app.py"
    assert front_matter["title"] == "My demo"
    assert front_matter["models"] == ["someone/detector"]
    assert len(front_matter["short_description"]) <= 60  # the Hub's limit
    call = ast.parse(files["app.py"]).body[-1].value
    assert ast.literal_eval(call.args[0]) == ["models/my-run", "someone/detector"]
    assert ast.literal_eval(call.keywords[0].value) == options
    base = {line.split(">")[0].split(";")[0] for line in requires("hf-gradalign") if "extra ==" not in line}
    needed = {line.split(">")[0] for line in files["requirements.txt"].decode().splitlines()}
    assert base <= needed
    assert "gradio" not in needed  # sdk_version
    package = Path(hf_gradalign.__file__).parent
    ours = {name for name in files if name.startswith("hf_gradalign/")}
    assert {"hf_gradalign/demo/assets/page.css", "hf_gradalign/data/demo_corpus/validation.parquet"} <= ours
    assert not [name for name in ours if "__pycache__" in name]
    assert files["hf_gradalign/labels.py"] == (package / "labels.py").read_bytes()
    model = {name.removeprefix("models/my-run/") for name in files if name.startswith("models/")}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= model
    assert "training_args.bin" not in model
    everything = b"".join(files.values())
    assert str(folder.parent).encode() not in everything  # paths of this machine
    assert b"secret" not in everything


def test_models_of_one_name_do_not_mix(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other" / "my-run")
    (tmp_path / "space").mkdir()
    write_space(tmp_path / "space", [folder, tmp_path / "other" / "my-run"], title="two")
    assert (tmp_path / "space" / "models" / "my-run" / "config.json").exists()
    assert (tmp_path / "space" / "models" / "my-run-1" / "config.json").exists()
    assert "models/my-run-1" in (tmp_path / "space" / "app.py").read_text()


@pytest.mark.slow
def test_a_space_is_pushed_and_updated_and_others_are_left_alone(hub, run_client, folder):
    first = [[str(folder)], "tester/my-demo", {"private": True, "max_mb": 5}]
    second = [["someone/detector"], "my-demo", {}]
    url = f"{hub.url}/spaces/tester/my-demo"
    assert run_client(PUSH, json.dumps([first, second])) == [url, url]
    space = hub.repos["spaces/tester/my-demo"]
    assert space.private
    before, now = (commit.files for commit in space.branches["main"][-2:])
    assert b"max_mb" in before["app.py"].data
    assert "models/my-run/model.safetensors" in before
    assert "hf_gradalign/data/demo_corpus/validation.parquet" in before
    assert not [name for name in now if name.startswith("models/")]
    assert "hf_gradalign/labels.py" in now
    now["app.py"] = StoredFile(b"print('my own app')")
    (error,) = run_client(PUSH, json.dumps([second]), home="another home")
    assert "contains another app, which would be replaced. Choose another name." in error
    assert space.files["app.py"].data == b"print('my own app')"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_mb": float("inf")}, "max_mb must be above 0 and finite"),
        ({"p_spoof": 5}, "p_spoof must be a probability"),
        ({"undecided_band": -1}, "undecided_band must be 0 or more"),
    ],
)
def test_a_space_that_could_not_start_is_not_made(tmp_path, option, message):
    with pytest.raises(ValueError, match=message):
        write_space(tmp_path, ["you/detector"], title="mine", **option)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["pickle", "labels", "base"])
def test_a_local_model_that_the_space_could_not_use(folder, tmp_path, fault):
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    if fault == "pickle":
        torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
        (model / "model.safetensors").unlink()
        message, kind = "has only pytorch_model.bin, a pickle, which is not published", PublishingError
    elif fault == "labels":
        settings = json.loads((model / "config.json").read_text())
        labels = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
        (model / "config.json").write_text(json.dumps(settings | labels))
        message, kind = "cannot tell which of the model's labels", ValueError
    else:
        (model / "model.safetensors").rename(model / "adapter_model.safetensors")
        (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
        message, kind = "PEFT adapters for the model .*my-run, which is on this machine only", PublishingError
    with pytest.raises(kind, match=message):
        write_space(tmp_path / "space", [model], title="mine")
    if fault == "labels":
        (tmp_path / "space").mkdir()
        write_space(tmp_path / "space", [model], title="mine", bonafide_label="LABEL_1")


@pytest.mark.slow
def test_a_space_runs_and_leaves_nothing_behind(folder, tmp_path):
    httpx = pytest.importorskip("httpx")
    for name in ("space", "tmp"):
        (tmp_path / name).mkdir()
    write_space(tmp_path / "space", [folder], title="mine", max_mb=3)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "GRADIO_TEMP_DIR")}
    environment["TMPDIR"] = str(tmp_path / "tmp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["GRADIO_SERVER_PORT"] = str(free.getsockname()[1])  # as a Space sets its own
    command = [sys.executable, "app.py"]
    process = subprocess.Popen(command, cwd=tmp_path / "space", env=environment, stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(120, process.kill)
    timer.start()
    try:
        site = next(line for line in process.stdout if "The page is at" in line).split()[4]
        assert site.startswith("http://127.0.0.1:")
        page = httpx.get(site).text
        assert "models/my-run" in page
        assert "Up to 3 MB" in page
        (path,) = httpx.post(f"{site}gradio_api/upload", files=[("files", ("a.wav", b"some sound"))]).json()
        assert Path(path).is_relative_to(tmp_path / "tmp")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        timer.cancel()
        process.kill()
    assert not [path for path in (tmp_path / "tmp").rglob("*") if "hf_gradalign" in path.name]

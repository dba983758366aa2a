"""Python processes that start quickly: forks of one that has imported the slow libraries.

`run` stands in for `subprocess.run([sys.executable, ...], capture_output=True, text=True)`. What reads its environment
when it is imported (huggingface_hub, transformers, datasets, evaluate, hf_gradalign) is left to each process to import.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path

SLOW_LIBRARIES = (
    *("aiohttp", "anyio", "av", "filelock", "fsspec", "h11", "httpcore2", "httpx", "httpx2", "jinja2", "multiprocess"),
    *("numpy", "pandas", "PIL.Image", "psutil", "pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet", "regex"),
    *("safetensors.torch", "scipy.optimize", "scipy.signal", "scipy.stats", "sklearn.metrics", "soundfile", "soxr"),
    *("sympy", "tokenizers", "torch", "torch._dynamo", "torch.distributed.checkpoint.state_dict"),
    *("torch.distributed.fsdp", "torch.distributed.tensor", "yaml"),
)
LEFT_TO_EACH = (
    "accelerate",
    "datasets",
    "evaluate",
    "hf_gradalign",
    "huggingface_hub",
    "peft",
    "torchaudio",
    "transformers",
)


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]


def run(command, env=None, cwd=None, timeout=200, **_):
    """Run `[sys.executable, "-c", PROGRAM, ...]` or a script, which may run in several processes as with torchrun."""
    python, *words = map(str, command)
    assert python == sys.executable
    processes = 1
    if words[: len(TORCHRUN)] == TORCHRUN:
        processes, words = int(words[len(TORCHRUN)]), words[len(TORCHRUN) + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        request = {
            "words": words,
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or os.getcwd()),
            "outputs": [f"{folder}/stdout", f"{folder}/stderr"],
            "processes": processes,
            "timeout": timeout,
        }
        server = _server()
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = json.loads(server.stdout.readline())
        stdout, stderr = (Path(path).read_text() for path in request["outputs"])
    return subprocess.CompletedProcess(command, status, stdout, stderr)


@functools.cache
def _server():
    server = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    atexit.register(server.communicate)  # it ends when its input ends
    return server


def _serve():
    for name in SLOW_LIBRARIES:
        with contextlib.suppress(ModuleNotFoundError):  # of httpx and httpx2 there is at least one
            importlib.import_module(name)
    early = sorted(name for name in LEFT_TO_EACH if name in sys.modules)
    assert not early, f"{early} came with them, and would read no environment but this one"
    # What is forked imports much more, which stays: looking for garbage in it took a quarter of the time.
    gc.freeze()
    gc.set_threshold(100_000)
    atexit.register(gc.unfreeze)
    for line in sys.stdin:
        request = json.loads(line)
        ranks = _ranks(request["processes"])
        children = set()
        for rank in ranks:
            child = os.fork()
            if child == 0:
                return _become(request, rank)
            children.add(child)
        sys.stdout.write(f"{_wait_for(children, request['timeout'])}\n")
        sys.stdout.flush()
    return None


def _ranks(count):
    if count == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    return [{k: str(v) for k, v in {**group, "RANK": rank, "LOCAL_RANK": rank}.items()} for rank in range(count)]


def _wait_for(children, timeout):
    """Wait for all processes. If one fails or time is up, end the others."""

    def end(*_):
        for child in children:
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.alarm(timeout)
    status = 0
    while children:
        child, ended = os.wait()
        children.discard(child)
        if ended and not status:
            status = os.waitstatus_to_exitcode(ended)
            end()
    signal.alarm(0)
    return status


def _become(request, rank):
    """Become the requested process, until the interpreter exits normally."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(request["outputs"], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.environ.clear()
    os.environ.update(request["env"] | rank)
    os.chdir(request["cwd"])
    random.seed()
    sys.modules["numpy"].random.seed()
    first, *words = request["words"]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if first == "-c":
        sys.argv, sys.path[0] = ["-c", *words[1:]], ""
        exec(compile(words[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv, sys.path[0] = [first, *words], os.path.dirname(os.path.abspath(first))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    _serve()

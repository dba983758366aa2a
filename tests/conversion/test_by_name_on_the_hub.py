"""Published checkpoints on the Hub load by name, offline the second time, and errors are one line."""

import hashlib
import io
import re

import pytest
import torch
from hub_server import Repository, StoredFile
from published_layout import logits_of, make_published

SIZES = {"hidden_size": 32, "num_attention_heads": 16, "num_conv_pos_embedding_groups": 4}  # 16 heads, as published
KNOWN = "SpeechAntiSpoofingBenchmarks/DPDA-GA-Mamba"
FILE = "dpda_ga_mamba_avg5.pth"
CLIENT = """
import os, time
from pathlib import Path
import torch
from hf_gradalign.utils import hub_waits
hub_waits._AUXILIARY_S = 0.5
hub_waits.limit_hub_waits()
time.sleep = lambda seconds: None
import hf_gradalign
from hf_gradalign.conversion import by_name
clips = torch.randn(2, 12_000, generator=torch.Generator().manual_seed(1))
def load(name, **options):
    model, _ = hf_gradalign.load_detector(name, **options)
    with torch.no_grad():
        return model(clips).logits.tolist()
def error_of(name, **options):
    try:
        load(name, **options)
        return "loaded"
    except (OSError, ValueError) as error:
        return str(error)
"""
QUICK = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}


def bytes_of(state):
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


@pytest.fixture(scope="module")
def published():
    model, state = make_published("mamba", **SIZES)
    return logits_of(model).tolist(), bytes_of(state)


def publish(hub, repo_id, files, **more):
    repository = hub.repos[repo_id] = Repository(repo_id, **more)
    stored = {name: StoredFile(data, is_lfs=name.endswith((".pth", ".ckpt"))) for name, data in files.items()}
    hub.lfs.update({file.oid: file.data for file in stored.values() if file.is_lfs})
    return repository.add("main", "files", stored)


@pytest.mark.slow
def test_a_repository_of_the_table_loads_and_needs_no_hub_the_second_time(hub, run_client, published, tmp_path):
    logits, content = published
    commit = publish(hub, KNOWN, {"README.md": b"A card.", FILE: content, "best_0.pth": content})
    record = "folder, = [path for path in by_name.cache_folder().iterdir() if path.is_dir()]\n"
    record += "report([load(args[0]), (folder / 'conversion.json').read_text(), (folder / 'README.md').read_text()])"
    first, kept, card = run_client(f"{CLIENT}load(args[0])\n{record}", KNOWN)
    assert first == logits
    digest = hashlib.sha256(content).hexdigest()
    for text in (digest, commit.oid, f"{KNOWN}:{FILE}"):
        assert text in kept
        assert text in card
    assert "| In-the-Wild | 6.43 |" in card
    hub.mood = "hang"
    again = "by_name.convert_state_dict = None\nreport(load(args[0]))"
    assert run_client(CLIENT + again, KNOWN, **QUICK) == logits


@pytest.mark.slow
def test_any_repository_with_one_checkpoint_and_files_by_name(hub, run_client, published):
    logits, content = published
    publish(hub, "tester/one", {"README.md": b"A card.", "weights/best.pth": content, "config.json": b'{"lr": 0.1}'})
    publish(hub, "tester/two", {"a.pth": content, "b.pth": content})
    loads = "report([load('tester/one'), load('tester/two:b.pth'), load('tester/two:b.pth', revision='main')])"
    assert run_client(CLIENT + loads) == [logits] * 3
    calls = len(hub.calls)
    again = "by_name.convert_state_dict = None\nreport([load('tester/one'), load('tester/two:b.pth')])"
    assert run_client(CLIENT + again, HF_HUB_OFFLINE="1") == [logits] * 2
    assert len(hub.calls) == calls


@pytest.mark.slow
def test_loading_errors_are_one_line(hub, run_client, published):
    _, content = published
    publish(hub, KNOWN, {FILE: content})
    publish(hub, "tester/gated", {"best.pth": content}, gated=True)
    publish(hub, "tester/two", {"a.pth": content, "b.pth": content})
    publish(hub, "tester/text", {"README.md": b"Only a card.", "config.json": b'{"lr": 0.1}'})
    publish(hub, "tester/odd", {"net.pth": bytes_of({"conv.weight": torch.ones(2, 3)}), "README.md": b"A card."})
    publish(hub, "tester/cut", {"best.pth": content[: len(content) // 2]})
    expected = {
        "tester/gated": r"the repository is gated: accept its conditions .* and run `hf auth login` or set HF_TOKEN",
        "tester/gated:best.pth": r"^tester/gated:best\.pth: the repository is gated",
        "tester/nobody": r"http\S+ has no such repository: check the name, and for a private repository run `hf auth",
        KNOWN.lower().replace("ga-m", "ga-n") + ":x.pth": r"has no such repository: check the name",
        KNOWN.replace("Mamba", "Manba") + ":x.pth": rf"has no such repository: .*\. Did you mean {KNOWN}\?",
        "tester/two": r"^tester/two has several checkpoints: name one of them, as tester/two:FILE\. It has: a\.pth \(",
        "tester/two:c.pth": r"^tester/two has no file c\.pth\. It has: a\.pth \(\d+\.\d kB\), b\.pth",
        "tester/text": r"^tester/text has no checkpoint \(.*It has: README\.md \(12 bytes\), config\.json \(11 bytes\)",
        "tester/odd": r"^tester/odd has no config\.json, .*tester/odd:net\.pth is not a published .*looked for "
        r".*It has 1 entries, first conv\.weight \(2, 3\)\. tester/odd has: net\.pth \(\S+ kB\), README\.md \(7",
        "tester/cut": r"best\.pth is truncated",
    }
    program = f"{CLIENT}report([*(error_of(name) for name in args[1:]), error_of(args[0], revision='v9')])"
    *messages, revision = run_client(program, KNOWN, *expected)
    for (name, pattern), message in zip(expected.items(), messages, strict=True):
        assert re.search(pattern, message), (name, message)
        assert "\n" not in message, name
    assert "the repository has no such revision: check --revision" in revision
    offline = run_client(f"{CLIENT}report(error_of(args[0]))", KNOWN, home="x", HF_HUB_OFFLINE="1")
    assert "offline mode is on, and the cache (the only source with HF_HUB_OFFLINE=1) does not contain it" in offline
    hub.mood = "drop"
    lost = run_client(f"{CLIENT}report(error_of(args[0]))", KNOWN, home="y", **QUICK)
    assert re.search(r"^\S+: the Hub at \S+ does not answer \(.*\), and the cache \(.*\) does not contain it$", lost)


@pytest.mark.long
@pytest.mark.slow
def test_a_file_that_changed_on_the_hub_is_reported(hub, run_client, published):
    logits, content = published
    first = publish(hub, KNOWN, {FILE: content})
    assert run_client(f"{CLIENT}report(load(args[0]))", KNOWN) == logits
    _, state = make_published("mamba", **SIZES)
    other = bytes_of({name: value * 2 if value.is_floating_point() else value for name, value in state.items()})
    stored = StoredFile(other, is_lfs=True)
    hub.lfs[stored.oid] = other
    second = hub.repos[KNOWN].add("main", "other weights", {FILE: stored})
    told = "told = []\nby_name.logger.warning = told.append\n"
    now, old, messages = run_client(
        f"{CLIENT}{told}report([load(args[0]), load(args[0], revision=args[1]), told])", KNOWN, first.oid
    )
    assert now != logits
    assert old == logits
    (message,) = [text for text in messages if "other content" in text]
    assert f"{KNOWN}:{FILE} has other content at commit {second.oid} than at {first.oid}, which" in message


@pytest.mark.long
@pytest.mark.slow
def test_a_damaged_download_is_refused_and_a_partial_one_resumed(hub, run_client, published):
    logits, content = published
    publish(hub, KNOWN, {FILE: content})
    damage = (
        "path = next(Path(os.environ['HF_HOME']).rglob('*.pth')).resolve()\n"
        "data = bytearray(path.read_bytes()); data[2000] ^= 255; path.write_bytes(data)\n"
        "report(error_of(args[0]))"
    )
    message = run_client(f"{CLIENT}load(args[0])\n{damage}", KNOWN)
    assert re.search(r"mamba_avg5\.pth is damaged: its SHA-256 is \w{64}, but the Hub has \w{64}\. Delete it", message)
    part = (
        "from huggingface_hub import file_download\nget = file_download.http_get\n"
        "def killed(url, file, **options):\n"
        "    file.write(hub_waits.httpx.get(url, follow_redirects=True).content[:1000]); file.flush(); os._exit(0)\n"
        "file_download.http_get = killed\n"
    )
    program = "if os.fork() == 0:\n    exec(args[1])\n    load(args[0])\nos.wait()\nreport(load(args[0]))"
    assert run_client(CLIENT + program, KNOWN, part, home="other") == logits

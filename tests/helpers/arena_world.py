"""A model's folder and a data set in the Arena's form, and what the Arena's three forms may hold: every key of them."""

import itertools
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LABELS = {f"clip_{number:03d}": int(number % 3 == 0) for number in range(60)}  # 1 bona fide
CARD = """---
license: mit
custom: {kept: [1, two]}
model-index:
- name: older name
  results:
  - task: {type: audio-classification}
    dataset: {name: Other set, type: someone/other, split: test, note: ours}
    metrics: [{type: eer, value: 0.25}]
---

# A model

Text with --- lines, ünicode and
---
a rule.

```bibtex
@inproceedings{other, eprint = {1111.22222}}
```

```bibtex
@inproceedings{truong2026addressing,
  eprint = {2509.20682},
}
```
"""


def make_model_folder(folder, card=CARD):
    folder.mkdir(parents=True)
    config = {"model_type": "spoof_detector", "head": "aasist", "backbone_config": {"model_type": "wav2vec2"}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {"weight": np.zeros((100, 200), np.float32), "bias": np.zeros(50, np.float16)}, folder / "model.safetensors"
    )
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def make_dataset_folder(folder, labels=LABELS, *, metrics="[eer_percent]", shards=2, labels_file=False):
    """0 is bona fide in its columns, as in the Arena's."""
    (folder / "data").mkdir(parents=True)
    (folder / "eval.yaml").write_text(f"name: A set\ntasks:\n- {{split: test, metrics: {metrics}}}\n")
    names, numbers = list(labels), [1 - label for label in labels.values()]
    if labels_file:
        table = pa.table({"utterance_id": names, "label": pa.array(numbers, pa.int8())})
        pq.write_table(table, folder / "data" / "labels.parquet")
        return folder
    for shard in range(shards):
        notes = [json.dumps({"utterance_id": name, "more": 1}) for name in names[shard::shards]]
        table = pa.table({"notes": notes, "label": pa.array(numbers[shard::shards], pa.int64())})
        pq.write_table(table, folder / "data" / f"test-{shard:05d}-of-{shards:05d}.parquet")
    return folder


def make_scores(labels=LABELS, seed=0):
    rng = np.random.default_rng(seed)
    return {name: float(rng.normal(1.5 * label)) for name, label in labels.items()}


def brute_force_eer_percent(bonafide, spoof):
    """Straight lines between the points (threshold: each different score, accepted from there on) of the two rates."""
    points = [
        (np.mean(np.array(spoof) >= threshold), np.mean(np.array(bonafide) < threshold))
        for threshold in sorted({*bonafide, *spoof})
    ]
    for (far, frr), (next_far, next_frr) in itertools.pairwise(points):
        if next_far <= next_frr:
            share = (far - frr) / ((far - frr) + (next_frr - next_far))
            return 100 * (far + share * (next_far - far))
    return 50 * sum(points[-1])


def keys(content, *names):
    assert set(content) == set(names), set(content) ^ set(names)
    return [content[name] for name in names]


def check_run_record(content):
    parts = keys(
        content,
        *("schema_version", "system", "dataset", "scores", "artifact"),
        *("reproduction", "submitter", "submitted_at", "notes"),
    )
    version, system, dataset, scores, artifact, *rest = parts
    assert version == 4
    assert rest == [{}, {}, None, None]
    keys(system, "name", "slug", "description", "code", "checkpoint", "paper")
    _, sha256, bench = keys(artifact, "scores_url", "scores_sha256", "bench_version")
    assert re.fullmatch("[0-9a-f]{64}", sha256)
    assert isinstance(bench, str)
    check_dataset_and_scores(dataset, scores)


def check_badge(content):
    version, system, dataset, scores, arena, artifact = keys(
        content, "schema_version", "system", "dataset", "scores", "arena", "artifact"
    )
    assert version == 1
    name, slug, paper = keys(system, "name", "slug", "paper")
    assert isinstance(name, str)
    assert re.fullmatch("[a-z0-9][a-z0-9-]*", slug)
    assert keys(paper, "arxiv_id") == ["2509.20682"]
    url, system_url = keys(arena, "url", "system_url")
    assert url.startswith("https://")
    assert system_url == f"{url}?system={slug}"
    check_address(*keys(artifact, "scores_url"))
    check_dataset_and_scores(dataset, scores)


def check_submission(content, *more, paper=True):
    names = ("schema_version", "system", "dataset", "scores", "artifact", "reproduction", "submitter", "submitted_at")
    version, system, dataset, scores, artifact, reproduction, submitter, day, *_ = keys(content, *names, *more)
    assert version == (5 if "calibration" in more else 4)
    required = ("name", "slug", "description", "code", "checkpoint", "params_millions")
    *texts, millions = keys(system, *required, *(["paper"] if paper else []))[:6]
    assert all(isinstance(text, str) and text for text in texts)
    assert millions > 0
    assert all(text.startswith("https://") for text in texts[3:])
    if paper:
        assert all(keys(system["paper"], "arxiv_id", "url", "bibtex"))
    address, sha256, bench = keys(artifact, "scores_url", "scores_sha256", "bench_version")
    check_address(address)
    assert re.fullmatch("[0-9a-f]{64}", sha256)
    assert bench
    assert reproduction == {}
    assert all(keys(submitter, "hf_username", "contact"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", day)  # a string, not a date
    check_dataset_and_scores(dataset, scores)


def check_dataset_and_scores(dataset, scores):
    identifier, revision, split = keys(dataset, "id", "revision", "split")
    assert re.fullmatch("[^/]+/[^/]+", identifier)
    assert re.fullmatch("[0-9a-f]{7,40}", revision)
    assert split == "test"
    metric = next(iter(scores))
    assert metric in ("eer_percent", "srr_complement")
    value, n_trials, n_skipped = keys(scores, metric, "n_trials", "n_skipped")
    assert type(value) is float
    assert type(n_trials) is type(n_skipped) is int
    assert 0 <= n_skipped <= 0.05 * n_trials


def check_address(address):
    assert re.fullmatch(
        r"https://huggingface\.co/[^/]+/[^/]+/resolve/[0-9a-f]{40}/\.eval_results/.+/scores\.txt", address
    )

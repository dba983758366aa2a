"""The README and the pages in docs/: their Python runs, their command lines parse, and their links lead somewhere."""

import argparse
import importlib
import re
import runpy
import shlex
import shutil
import signal
import sys
import warnings
from pathlib import Path
from unittest.mock import create_autospec

import corpus_trees
import pytest
import soundfile
from arena_world import CARD, COMMIT, LABELS, make_dataset_folder, make_scores
from tiny_detectors import make_config, make_detector
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModel, PreTrainedTokenizerFast

import hf_gradalign.hub.arena
from hf_gradalign.augmentation import get_augmentation
from hf_gradalign.cli.main import COMMANDS
from hf_gradalign.experiment import parse_arguments
from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.study import Study

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "scripts" / "recipes" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"(<!-- not run: .+ -->\n)?^ *```(\w*).*?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

# What stands for a corpus, a model or a training of minutes: text of a page, and what is run in its place.
STAND_INS = {
    "README.md": {
        "learning_rate=1e-3)": "learning_rate=1e-3, max_steps=2, per_device_train_batch_size=4)",
    },
    "docs/train.md": {
        'check_audio(corpus["train"])': 'check_audio(corpus["train"].select(range(4)))',
        'corpus["validation"]': 'corpus["validation"].select(range(4))',
    },
    "docs/detectors.md": {
        'SpoofDetectorConfig(head="mamba")': 'make_config(head="mamba")',
        '"facebook/wav2vec2-xls-r-300m", head="aasist"': '"backbone", head="aasist"',
        '"nii-yamagishilab/xls-r-1b-anti-deepfake"': (
            f'"{ROOT}/tests/fixtures/antideepfake_w2v.pth", conversion_options={{"num_attention_heads": 4}}'
        ),
    },
    "docs/scoring.md": {"num_workers=4": "num_workers=0"},
    "docs/arena.md": {
        'load_arena_dataset("InTheWild")': f'load_arena_dataset("InTheWild", folder="set", revision="{COMMIT}")'
    },
    "docs/verdicts.md": {
        '"docs/small_scale/': f'"{ROOT}/docs/small_scale/',
        'CalibratedFolder("runs/my-run")': 'CalibratedFolder("runs/calibrated")',
        'SpoofScorer("runs/my-run").predict(["a.wav", "b.wav"]': 'SpoofScorer("runs/calibrated").predict(["a.wav"]',
    },
    "docs/modalities.md": {"max_steps=40": "max_steps=2"},
}


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, language):
    """The fenced blocks of a language that are not marked as not run: (line, text)."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match[2] == language and not match[1]:
            yield text.count("\n", 0, match.start(3)) + 1, match[3]


with_python = [page for page in PAGES if any(blocks(page, "python"))]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with what the pages take for granted: a trained model, recordings, corpora, score files."""
    world = tmp_path_factory.mktemp("world")
    run = world / "runs" / "my-run"
    make_detector().save_pretrained(run)
    SpoofDetectorFeatureExtractor(n_samples=3200).save_pretrained(run)
    (run / "README.md").write_text(CARD, encoding="utf-8")
    AutoModel.from_config(make_config().backbone_config).save_pretrained(world / "backbone")
    shutil.copytree(run, world / "runs" / "calibrated")  # other pages do not expect that scores are calibrated
    labels = ["spoof", "bonafide"] * 10
    (world / "dev.txt").write_text("".join(f"d{i} {i % 2 + i % 7 / 4}\n" for i in range(20)))
    (world / "keys.tsv").write_text("utterance_id\tlabel\n" + "".join(f"d{i}\t{labels[i]}\n" for i in range(20)))
    for name in ("speech.wav", "a.wav", "b.flac"):
        soundfile.write(world / name, corpus_trees.speech(0), corpus_trees.RATE)
    (world / "broken.wav").write_bytes(b"RIFF")
    (world / "config.yaml").write_text("learning_rate: 0.001\n")
    corpus_trees.asvspoof2019_la(world / "data")
    corpus_trees.asvspoof2021_df(world / "data" / "DF")
    corpus_trees.in_the_wild(world / "data" / "itw")
    keys = [
        f"LA_000{i} LA_E_{i} alaw ita_tx {'A07 spoof' if i % 2 else 'bonafide bonafide'} notrim eval" for i in range(8)
    ]
    corpus_trees.write_lines(world / "keys" / "LA" / "CM" / "trial_metadata.txt", keys)
    for name, step in (("scores.txt", 3), ("theirs.txt", 5)):
        corpus_trees.write_lines(world / name, [f"LA_E_{i} {i * step % 8}.25" for i in range(8)])
    make_dataset_folder(world / "set")
    corpus_trees.write_lines(world / "itw.txt", [f"{name} {score:.6f}" for name, score in make_scores(LABELS).items()])
    return world


@pytest.fixture
def given():
    """What a page's blocks find defined, by page."""
    words = ["[PAD]", "[UNK]", "[MASK]", "some", "words"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", pad_token="[PAD]")
    return {
        "docs/modalities.md": {"tokenizer": tokenizer, "text": "some words", "label": 1},
        "docs/detectors.md": {"make_config": make_config},
    }


@pytest.mark.parametrize("page", with_python, ids=name_of)
def test_python_runs(page, world, given, monkeypatch, tmp_path):
    monkeypatch.chdir(world)
    monkeypatch.setattr(sys, "path", [*sys.path])
    push = create_autospec(hf_gradalign.hub.arena.push_arena_results)
    monkeypatch.setattr(hf_gradalign.hub.arena, "push_arena_results", push)
    namespace = {"__name__": "page", **given.get(name_of(page), {})}
    unused = STAND_INS.get(name_of(page), {}).copy()
    for line, code in blocks(page, "python"):
        for text, stand_in in STAND_INS.get(name_of(page), {}).items():
            if text in code:
                code, _ = code.replace(text, stand_in), unused.pop(text, None)
        code = code.replace("/data/", f"{world}/data/").replace('"out"', f'"{tmp_path}"')
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of scores as odd as eight made-up ones are
            exec(compile("\n" * line + code, str(page), "exec"), namespace)
    assert not unused, "the page no longer has this text"


def test_the_study_file_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA", str(tmp_path))
    ((_, text),) = blocks(ROOT / "docs" / "studies.md", "yaml")
    (tmp_path / "study.yaml").write_text(text)
    study = Study.read(tmp_path / "study.yaml")
    assert len(study.trials) == 2 * 2 * 5 + 3 * 5
    assert {evaluation.name for evaluation in study.evaluation_sets} == {"21DF", "itw"}


def test_the_file_of_corpora_parses(tmp_path):
    ((_, text),) = blocks(ROOT / "docs" / "corpora" / "your_own.md", "yaml")
    (tmp_path / "config.yaml").write_text(text)
    assert parse_arguments([str(tmp_path / "config.yaml")]).data.corpus == ["data/corpus_a", "data/corpus_b.csv"]


def test_the_augmentation_file_augments(tmp_path):
    ((_, text),) = blocks(ROOT / "docs" / "augmentation.md", "yaml")
    (tmp_path / "noise.yaml").write_text(text.replace(":/data/musan", "").replace("[opus, g722]", "[opus]"))
    clip = corpus_trees.speech(0)
    assert get_augmentation(str(tmp_path / "noise.yaml"))(clip, sample_rate=corpus_trees.RATE).shape == clip.shape


class Parsed(BaseException):
    """A script has read its command line, and would begin."""


def command_lines(page):
    """Each `python scripts/...` of a page: in blocks of shell and in the text."""
    text = page.read_text(encoding="utf-8")
    for _, block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if re.search(r"\bscripts/\w+\.py", line):
                yield from (part.strip() for part in line.split("&&") if "scripts/" in part)
    for span in re.findall(r"`([^`]*)`", FENCE.sub("", text)):
        if span.startswith("python scripts/"):
            yield " ".join(span.split())


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in command_lines(page)}))
def test_command_lines_parse(line, world, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line, comments=True)
    at = next(index for index, word in enumerate(words) if word.startswith("scripts/") and word.endswith(".py"))
    script, arguments = words[at], words[at + 1 :]
    assert (ROOT / script).is_file()
    if script == "scripts/run_audio_spoof.py":
        monkeypatch.chdir(world)
        arguments = [str(ROOT / word) if word.startswith("scripts/recipes/") else word for word in arguments]
        parse_arguments(arguments)
        return

    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(parser, *positional, **options):
        raise Parsed(parse(parser, *positional, **options)[1])

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_and_stop)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(ROOT / "scripts")
    with pytest.raises(Parsed) as parsed:
        runpy.run_path(script, run_name="__main__")
    rest = parsed.value.args[0]
    if script == "scripts/benchmark_run.py":  # which passes what it does not know on to a run
        monkeypatch.undo()
        monkeypatch.chdir(ROOT)
        rest = parse_arguments(rest) and []
    assert rest == []


def commands(page):
    """Each `hf-gradalign ...` in the blocks of shell of a page."""
    for _, block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"\s*hf-gradalign ", line):
                yield line.strip()


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands(page)}))
def test_commands_parse(line, world, monkeypatch):
    monkeypatch.chdir(world)
    _, name, *arguments = shlex.split(line, comments=True)
    assert name in COMMANDS
    if name == "train":
        parse_arguments(arguments)
        return
    main = importlib.import_module(f"hf_gradalign.cli.{name.replace('-', '_')}").main
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, *positional, **options):
        raise Parsed(parse(parser, *positional, **options))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    with pytest.raises(Parsed):
        main(arguments)


def anchors(page):
    """The anchors of a page's headings, as GitHub and the site make them."""
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
        yield re.sub(r"\s", "-", plain)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "model_cards" / "README.md"], ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"`[^`]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and not anchor.startswith("hf_gradalign."):  # of the API's pages, which mkdocs checks
            assert anchor in list(anchors(target)), link


def test_the_map_is_true():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = [span for span in re.findall(r"`([\w./]*/[\w./]*)`", text) if span.endswith(("/", ".py", ".md"))]
    assert len(paths) > 30
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "hf_gradalign" / path).exists(), path
    packages = {path.parent.name for path in (ROOT / "hf_gradalign").glob("*/__init__.py")}
    assert packages == set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["pyproject.toml", "CITATION.cff"])
def test_one_version(name):
    version = re.search(r'^version( =|:) "?([\w.]+)', (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)[2]
    assert version == hf_gradalign.__version__


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 9 * 1024

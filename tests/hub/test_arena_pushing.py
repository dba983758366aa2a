"""Results on a local Hub: the scores' URL names their commit, and the badge contains it."""

import re

import pytest
import yaml
from arena_world import COMMIT, LABELS, check_badge, check_run_record, check_submission, make_model_folder, make_scores

from hf_gradalign.hub.arena import ArenaDataset, describe_system, write_arena_results

OWNER = "SpeechAntiSpoofingBenchmarks"
# The Arena's module is imported before the others, as in the Arena's tool.
PROGRAM = """
import hf_gradalign.hub.arena as arena
from hf_gradalign.cli.arena import main

folder, empty, *words = args
def trouble(action, *positional):
    try:
        return action(*positional)
    except arena.ArenaError as error:
        return str(error)

answers = {"status": main([folder, *words])}
answers["found"] = arena.find_scores(folder, "tester/model", "SpeechAntiSpoofingBenchmarks/DFADD")
answers["nowhere"] = trouble(arena.find_scores, folder, "tester/nowhere", "o/set")
answers["missing"] = trouble(arena.find_scores, folder, "tester/model", "o/set")
answers["empty"] = trouble(arena.push_arena_results, empty, "tester/model")

labels = {f"clip_{number:03d}": int(number % 3 == 0) for number in range(60)}
dataset = arena.ArenaDataset(id="SpeechAntiSpoofingBenchmarks/DFADD", revision="a" * 40, labels=labels)
system = arena.describe_system(folder, paper_arxiv="2509.20682")
arena.write_arena_results(folder, {name: float(place) for place, name in enumerate(labels)}, dataset, system)
answers["other"] = trouble(arena.find_scores, folder, "tester/model", "SpeechAntiSpoofingBenchmarks/DFADD")
answers["addresses"] = arena.push_arena_results(folder, "model")  # of the token's owner
report(answers)
"""


@pytest.mark.slow
def test_pushed_scores_have_an_address_that_badges_and_submissions_name(hub, run_client, tmp_path):
    folder, empty = make_model_folder(tmp_path / "model"), make_model_folder(tmp_path / "without results")
    for name, paper in (("DFADD", "2509.20682"), ("HABLA", None)):
        dataset = ArenaDataset(id=f"{OWNER}/{name}", revision=COMMIT, labels=LABELS)
        write_arena_results(folder, make_scores(seed=1), dataset, describe_system(folder, paper_arxiv=paper))
    scores, labels = tmp_path / "scores.txt", tmp_path / "labels.txt"
    scores.write_text("".join(f"{name} {score:.6f}\n" for name, score in make_scores().items()))
    labels.write_text("".join(f"{name} {('spoof', 'bonafide')[label]}\n" for name, label in LABELS.items()))
    words = ["--dataset", "in the wild", "--scores", scores, "--labels", labels, "--revision", COMMIT]
    words += ["--push_to_hub", "--hub_model_id", "tester/model", "--private", "--paper_arxiv", "2509.20682"]
    words += ["--submission", tmp_path / "out.yaml", "--hf_username", "tester", "--contact", "t@example.com"]

    answers = run_client(PROGRAM, folder, empty, *words)

    assert answers["status"] == 0
    assert "tester/nowhere cannot be read" in answers["nowhere"]
    assert "tester/model has no .eval_results/o/set/scores.txt yet: push the results first" in answers["missing"]
    assert "have different scores of SpeechAntiSpoofingBenchmarks/DFADD" in answers["other"]
    assert "has no results of the Arena's data sets to push" in answers["empty"]

    repository = hub.repos["tester/model"]
    assert repository.private
    commits = repository.branches["main"][1:]
    titles = 2 * ["Upload model and Arena scores", "Arena results: where the scores are"]
    assert [commit.title for commit in commits] == titles
    files = {path: file.data for path, file in repository.files.items() if path != ".gitattributes"}
    assert set(files) == {
        *("README.md", "config.json", "model.safetensors"),
        *(
            f".eval_results/{OWNER}/{name}/{file}"
            for name in ("InTheWild", "DFADD", "HABLA")
            for file in ("scores.txt", "result.yaml")
        ),
    }
    assert all(content == (folder / path).read_bytes() for path, content in files.items())

    # Unchanged scores keep the URL of their first commit, others get a new one.
    for name, pushed in (("InTheWild", commits[0]), ("DFADD", commits[2]), ("HABLA", commits[2])):
        path = f".eval_results/{OWNER}/{name}/scores.txt"
        content = yaml.safe_load(files[f".eval_results/{OWNER}/{name}/result.yaml"])
        check_run_record(content) if name == "HABLA" else check_badge(content)  # HABLA's has no paper
        address = content["artifact"]["scores_url"]
        assert address == f"https://huggingface.co/tester/model/resolve/{pushed.oid}/{path}"
        assert pushed.files[path].data == files[path]
    assert re.fullmatch(rf".*/resolve/{commits[1].oid}/\.eval_results/.*/DFADD/scores\.txt", answers["found"])
    assert (
        commits[1].files[f".eval_results/{OWNER}/DFADD/scores.txt"].data
        != files[f".eval_results/{OWNER}/DFADD/scores.txt"]
    )

    proposed = yaml.safe_load((tmp_path / "out.yaml").read_text())
    check_submission(proposed)
    badge = yaml.safe_load(files[f".eval_results/{OWNER}/InTheWild/result.yaml"])
    assert proposed["artifact"]["scores_url"] == badge["artifact"]["scores_url"]
    assert files[f".eval_results/{OWNER}/InTheWild/scores.txt"] == scores.read_bytes()
    assert {address.split("/resolve/")[1][:40] for address in answers["addresses"].values()} == {commits[2].oid}

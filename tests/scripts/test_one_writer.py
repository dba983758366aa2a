"""Commands that would write to the same place at the same time: the second is refused before it reads anything."""

import pytest

from hf_gradalign.utils.file_locks import hold_output


@pytest.mark.parametrize(
    ("script", "words", "output"),
    [
        ("convert_checkpoint", ["nothing.pth", "--output_dir", "out"], "out"),
        ("convert_checkpoint", ["nothing", "--reverse", "--output_file", "out.pth"], "out.pth"),
        ("export_onnx", ["nothing", "--output", "out.onnx"], "out.onnx"),
        ("evaluate_scores", ["nothing.txt", "--output_dir", "out"], "out/evaluation.json"),
        ("evaluate_scores", ["nothing.txt", "--output_json", "out.json", "--formats", "none"], "out.json"),
        ("evaluate_scores", ["nothing.txt", "--output_dir", "out", "--output_json", "a.json"], "out/evaluation.json"),
        ("write_arena_results", ["model", "--dataset", "o/set", "--scores", "nothing.txt"], "model/README.md"),
    ],
)
def test_the_second_is_refused(load_script, tmp_path, monkeypatch, capsys, script, words, output):
    monkeypatch.chdir(tmp_path)
    with hold_output(output):
        assert load_script(script).main(words) == 2
        assert f"error: {tmp_path / output} is in use by process" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

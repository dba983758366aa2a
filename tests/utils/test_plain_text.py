import ntpath
from types import SimpleNamespace

import pyarrow as pa
import pytest

from hf_gradalign.utils import plain_text as module
from hf_gradalign.utils.plain_text import (
    code_block,
    code_span,
    composed_column,
    markdown_cell,
    markdown_text,
    plain_text,
    shorten_local_paths,
    split_at_colons,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("spoof_system_A01", "spoof_system_A01"),
        ("facebook/wav2vec2-base (60/40), weight 0.5", "facebook/wav2vec2-base (60/40), weight 0.5"),
        ("_x_ *y* `z`", r"\_x\_ \*y\* \`z\`"),
        ("[a](javascript:b)", r"\[a\](javascript:b)"),
        ("<img src=x>", r"\<img src=x>"),
        ("http://e.org www.e.org &lt; &", r"http\://e.org www\.e.org \&lt; &"),
        ("two\n---\nlines\x1b[31m", "two --- lines"),
        ("x\u202egnp.exe", "xgnp.exe"),
    ],
)
def test_a_name_is_shown_as_it_is(name, shown):
    assert markdown_text(name) == shown
    assert markdown_cell(f"{name}|") == shown + r"\|"


def test_code_cannot_be_left():
    assert code_span("a`b") == "``a`b``"
    assert code_span("`") == "`` ` ``"
    assert code_block("x\n```\n# y") == "````\nx\n```\n# y\n````"
    assert plain_text("\u2066a") == "a"


def test_paths_of_this_machine_are_cut(tmp_path):
    assert shorten_local_paths(f'{{"a": "{tmp_path}/b c/d e.wav"}}') == '{"a": "d e.wav"}'
    assert shorten_local_paths(f"x\t{tmp_path}/b c.wav\ty") == "x\tb c.wav\ty"
    assert shorten_local_paths(f"la:{tmp_path}/LA --a={tmp_path}/x/ ({tmp_path}/y)") == "la:LA --a=x (y)"
    for text in ("https://e.org/tmp/x", "60/40", "a/b", "/no-such-folder/x", "</p>", "/tmp"):
        assert shorten_local_paths(text) == text


def test_paths_of_a_windows_machine_are_cut(monkeypatch):
    monkeypatch.setattr(module, "_PATHS", module._path_patterns(module._ROOT_ON_WINDOWS))
    path = SimpleNamespace(splitdrive=ntpath.splitdrive, isdir={"C:/Users", "D:/data"}.__contains__)
    monkeypatch.setattr(module, "os", SimpleNamespace(sep="\\", altsep="/", path=path))
    for text, cut in {
        r'{"a": "C:\\Users\\me\\b c"}': '{"a": "b c"}',  # as JSON writes it
        r"la:D:\data\LA --a=C:/Users/me/x/ (file:///C:/Users/me/y)": "la:LA --a=x (file:///y)",
        "x\tC:\\Users\\b c.wav\ty": "x\tb c.wav\ty",
        r"E:\no\x C:\Users http://e.org/a/b a/b \d+": r"E:\no\x C:\Users http://e.org/a/b a/b \d+",
    }.items():
        assert shorten_local_paths(text) == cut


@pytest.mark.parametrize(
    "parts",
    [["musan_rir"], ["musan_rir", r"C:\musan", "d:/rir", "org/name"], ["arena", r"C:\la"], [r"C:\la"], ["a", "b", ""]],
)
def test_colons_after_drive_letters_do_not_separate(parts, monkeypatch):
    text = ":".join(parts)
    monkeypatch.setattr(module, "_COLON", ":")
    assert split_at_colons(text) == text.split(":")
    monkeypatch.setattr(module, "_COLON", module._COLON_UNLESS_OF_DRIVE)
    assert split_at_colons(text) == parts
    assert split_at_colons("musan_rir:/data/x") == ["musan_rir", "/data/x"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_names_in_one_unicode_form(kind):
    names = ["gro\u0308\u00dfe", None, "plain", "gr\u00f6\u00dfe", "\uac00", "\u1100\u1161"]
    composed = ["gr\u00f6\u00dfe", None, "plain", "gr\u00f6\u00dfe", "\uac00", "\uac00"]
    assert composed_column(pa.array(names, kind)).to_pylist() == composed
    chunks = pa.chunked_array([names[:1], names[1:3], names[3:]], kind)
    assert composed_column(chunks).to_pylist() == composed
    assert composed_column(pa.array(["a", None], kind)).to_pylist() == ["a", None]
    assert composed_column(pa.array([], kind)).to_pylist() == []

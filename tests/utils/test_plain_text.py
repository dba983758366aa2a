import pyarrow as pa
import pytest

from hf_gradalign.utils.plain_text import (
    code_block,
    code_span,
    composed_column,
    markdown_cell,
    markdown_text,
    plain_text,
    shorten_local_paths,
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


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_names_in_one_unicode_form(kind):
    names = ["gro\u0308\u00dfe", None, "plain", "gr\u00f6\u00dfe", "\uac00", "\u1100\u1161"]
    composed = ["gr\u00f6\u00dfe", None, "plain", "gr\u00f6\u00dfe", "\uac00", "\uac00"]
    assert composed_column(pa.array(names, kind)).to_pylist() == composed
    chunks = pa.chunked_array([names[:1], names[1:3], names[3:]], kind)
    assert composed_column(chunks).to_pylist() == composed
    assert composed_column(pa.array(["a", None], kind)).to_pylist() == ["a", None]
    assert composed_column(pa.array([], kind)).to_pylist() == []

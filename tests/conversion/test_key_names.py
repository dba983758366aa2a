from hf_gradalign.conversion.reading import KeyNames

NAMES = KeyNames([("a.{n}.x", "left.{n}.y"), ("a", "top"), ("a.{n}.0.{n}", "deep.{n}.in.{n}")])


def test_forward_and_back():
    for theirs, ours in (("a.12.x.weight", "left.12.y.weight"), ("a", "top"), ("a.3.0.4.b", "deep.3.in.4.b")):
        assert NAMES.to_ours(theirs) == ours
        assert NAMES.to_theirs(ours) == theirs


def test_whole_components_only():
    assert NAMES.to_ours("ab.weight") is None
    assert NAMES.to_ours("a.1.xx.weight") == "top.1.xx.weight"
    assert NAMES.to_theirs("lefty") is None

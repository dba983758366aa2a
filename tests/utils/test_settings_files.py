import pytest

from hf_gradalign.utils.settings_files import read_settings


def alias_bomb(first, item, levels=30):
    return f"a0: &a0 {first}\n" + "".join(
        f"a{i}: &a{i} {item % ', '.join([f'*a{i - 1}'] * 9)}\n" for i in range(1, levels)
    )


def read(folder, text, name="file.yaml"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_settings(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (alias_bomb("[x, x]", "[%s]"), "aliases .* expand to too much"),
        (alias_bomb("{x: y}", "{<<: [%s], k: 1}"), "aliases .* expand to too much"),
        ("a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 1000) + "]", "aliases .* expand to too much"),
        ("a: &a [*a]", "contains itself"),
        ("[" + "1," * 200_000 + "1]", "more than 100,000 values"),
        ("- " * 60 + "x", "more than 50 deep"),
        ("[" * 100_000, "(deep|nesting depth)"),
        ("a: 1\n" * 500_000, "more than 2,000,000 bytes"),
        ("seed: " + "9" * 20_000, "20,000 digits is too long"),
        ("seed: 0x" + "f" * 20_000, "20,002 digits is too long"),
        ("seed: 1" + ":59" * 20_000, "60,001 digits is too long"),
        ("seed: -9223372036854775809", "is too long"),
        ("rate: " + "1" * 20_000 + ".5", "20,002 digits is too long"),
        ("rate: 1.0e+999", "number 1.0e.999 is too large"),
        ("seed: 1\nepochs: 2\nseed: 2", "key 'seed' occurs twice in a mapping, in line 3"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: !!set {b}", "could not determine a constructor"),
        ("a: [", "flow node"),
        (b"a: \xe9", "utf-8"),
    ],
)
def test_what_is_out_of_bounds_is_refused(tmp_path, text, reason):
    with pytest.raises(ValueError, match=rf"file\.yaml: not a readable YAML or JSON file: .*{reason}") as told:
        read(tmp_path, text)
    assert len(str(told.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"seed": ' + "9" * 20_000 + "}", "20,000 digits is too long"),
        ('{"rate": 1e999}', "number 1e999 is too large"),
        ("[" * 100_000, "recursion|overflow"),  # the second since Python 3.14
        ('{"a": ' * 51 + "1" + "}" * 51, "more than 50 deep"),
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ('"' + '\\"' * 900_000, "Unterminated string"),
    ],
)
def test_json_has_the_same_bounds(tmp_path, text, reason):
    with pytest.raises(ValueError, match=rf"file\.json: not a readable YAML or JSON file: .*({reason})"):
        read(tmp_path, text, "file.json")


def test_what_people_write_is_read(tmp_path):
    text = """
    base: &base {learning_rate: 1e-4, epochs: 10, hex: 0x10, none: null, on: yes}
    longer: {<<: *base, epochs: 20}
    name: 2026-02-31
    limits: [.inf, 9223372036854775807, -0.5]
    label_map: {0: spoof, fake: spoof}
    """
    content = read(tmp_path, text)
    assert content["longer"] == {"learning_rate": "1e-4", "epochs": 20, "hex": 16, "none": None, True: True}
    assert content["name"] == "2026-02-31"
    assert content["limits"] == [float("inf"), 2**63 - 1, -0.5]
    assert content["label_map"] == {0: "spoof", "fake": "spoof"}
    assert read(tmp_path, '\ufeff{"a": [1, 2.5, null, "x]"]}', "file.json") == {"a": [1, 2.5, None, "x]"]}
    assert read(tmp_path, "") is None

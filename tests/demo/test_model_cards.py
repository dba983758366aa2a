import json

import pytest

from hf_gradalign.demo.model_cards import parse_card, read_card
from hf_gradalign.models import SpoofDetectorFeatureExtractor  # noqa: F401  registers the detectors

CARD = """---
license: mit
tags: [<script>alert(1)</script>]
---
# A detector <img src=x onerror=alert(1)>

<script>alert(1)</script>

![a picture](https://elsewhere.example/pixel.png) [bad](javascript:alert(1)) [good](https://elsewhere.example)
<a href="javascript:alert(1)" onclick="alert(1)">x</a>

## Intended use and limits

Knows **one** voice.

```python
# Limits
```

### In detail

Not yours.

## Training

| data | n |
|---|---|
| <b>x</b> | 1 |

## Bias

Men only.
"""


def test_limits_are_found_by_their_headings():
    card = parse_card(CARD)
    assert card.license == "mit"
    assert "<strong>one</strong>" in card.limits
    assert "Not yours" in card.limits
    assert "Men only" in card.limits
    assert "Training" not in card.limits
    assert card.limits.count("# Limits") == 1  # a comment in code is no heading
    assert "<table>" in card.whole


def test_nothing_of_a_card_is_html():
    whole = parse_card(CARD).whole
    for tag in ("<script", "<img", "<b>", '<a href="javascript', 'onclick="'):
        assert tag not in whole
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in whole
    assert "[image: a picture]" in whole
    assert 'href="https://elsewhere.example"' in whole
    assert 'rel="noopener noreferrer nofollow"' in whole
    assert whole.count("<a ") == 1


@pytest.mark.parametrize(
    "text", ["", "---\n", "---\n: [\n---\ntext", "---\n- a\n---\ntext", "# Limits", "---\nlicense: [1]\n---\n"]
)
def test_odd_cards(text):
    card = parse_card(text)
    assert (card.limits, card.license) == ("", "")


def test_a_folder_with_and_without_a_card(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    assert read_card(str(tmp_path)).whole == ""
    (tmp_path / "README.md").write_text(CARD)
    assert "Knows" in read_card(str(tmp_path)).limits

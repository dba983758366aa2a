"""The model cards next to a verdict. HTML in a card is shown as text."""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from markdown_it import MarkdownIt
from markupsafe import Markup

from hf_gradalign.conversion.by_name import model_folder

_CARD = "README.md"
_MOST = 200_000  # characters of a card
_FRONT_MATTER = re.compile(r"\A\s*---\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_LIMITS = re.compile(r"limit|intended use|out.of.scope|bias|risk|caveat", re.IGNORECASE)

_NOTHING = Markup()


@dataclass(frozen=True)
class ModelCard:
    """A model's card as HTML.

    Attributes:
        limits: Its sections on limits and intended use. Empty if there are none.
        whole: The whole card. Empty if the model has no card.
        license: The license that it names. Empty if it names none.
    """

    limits: Markup = _NOTHING
    whole: Markup = _NOTHING
    license: str = ""


def read_card(name: str, hub_options: dict[str, Any] | None = None) -> ModelCard:
    """Read the card of a model by its name.

    Args:
        name: As for `SpoofScorer`.
        hub_options: As for `SpoofScorer`.

    Returns:
        The card. An empty one if the model has none, or the Hub does not answer.
    """
    return parse_card(_card_text(name, hub_options or {}))


def parse_card(text: str) -> ModelCard:
    """Convert a card to HTML. The card may come from anyone.

    HTML in the card is shown as text. Images are left out, because they would be loaded from other servers. Links to
    websites are kept.
    """
    text = text[:_MOST].replace("\r\n", "\n")
    match = _FRONT_MATTER.match(text)
    body = text[match.end() :] if match else text
    return ModelCard(_html("\n\n".join(_sections(body, _LIMITS))), _html(body), _license(match[1]) if match else "")


def _card_text(name: str, hub_options: dict[str, Any]) -> str:
    folder, options = model_folder(name, hub_options)
    path = Path(folder) / _CARD
    if Path(folder).is_dir():
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    where: dict[str, Any] = {key: options.get(key) for key in ("revision", "token", "cache_dir")}
    try:
        return Path(hf_hub_download(folder, _CARD, **where)).read_text(encoding="utf-8", errors="replace")
    except (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, HFValidationError):
        return ""


def _license(front_matter: str) -> str:
    try:
        content = yaml.safe_load(front_matter)
    except yaml.YAMLError:
        return ""
    named = content.get("license") if isinstance(content, dict) else None
    return named if isinstance(named, str) else ""


def _sections(body: str, wanted: re.Pattern[str]) -> list[str]:
    """Return the sections whose headings match, without the headings, each with its subsections."""
    lines = body.splitlines()
    tokens = _CONVERTER.parse(body)
    headings = [
        (token.map, int(token.tag[1]), title.content)
        for token, title in pairwise(tokens)
        if token.type == "heading_open" and token.level == 0 and token.map
    ]
    sections, taken_to = [], 0
    for index, ((start, content), level, title) in enumerate(headings):
        if start < taken_to or not wanted.search(title):
            continue
        later = (bounds[0] for bounds, other, _ in headings[index + 1 :] if other <= level)
        taken_to = next(later, len(lines))
        sections.append("\n".join(lines[content:taken_to]).strip())
    return [section for section in sections if section]


def _html(markdown: str) -> Markup:
    tokens = _CONVERTER.parse(markdown)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):  # below the page's own headings
            token.tag = f"h{min(int(token.tag[1]) + 3, 6)}"
        for child in token.children or ():
            if child.type == "link_open":
                child.attrs |= {"target": "_blank", "rel": "noopener noreferrer nofollow"}
            elif child.type == "image":
                child.type, child.content = "text", f"[image: {child.content}]"
    return Markup(_CONVERTER.renderer.render(tokens, _CONVERTER.options, {}))


def _converter() -> MarkdownIt:
    converter = MarkdownIt("commonmark", {"html": False}).enable("table")  # without `html`, tags become text
    converter.validateLink = lambda url: re.match(r"(?i)https?://|mailto:", url) is not None
    return converter


_CONVERTER = _converter()

"""For the API's pages: formulas in docstrings as MathML, which browsers draw without a script."""

import base64
import re
from typing import Any

import griffe
from latex2mathml.converter import convert

# `:math:` in a line, and `.. math::` with what is indented below it.
_INLINE = re.compile(r":math:`([^`]+)`")
_BLOCK = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*|(?=\n\1 +\S)))*)", re.MULTILINE)
_HIDDEN = re.compile(r"<code>formula-(inline|block)-([\w=-]+)</code>")


class Formulas(griffe.Extension):
    """Hides the formulas of every docstring from Markdown, which would change them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each module, class, function and attribute that it has read."""
        if obj.docstring:
            text = _BLOCK.sub(lambda found: found[1] + _hide(found[2], "block"), obj.docstring.value)
            obj.docstring.value = _INLINE.sub(lambda found: _hide(found[1], "inline"), text)


def _hide(formula: str, display: str) -> str:
    return f"`formula-{display}-{base64.urlsafe_b64encode(' '.join(formula.split()).encode()).decode()}`"


def on_page_content(html: str, **_: Any) -> str:
    """Called by MkDocs with each page: shows the formulas."""
    return _HIDDEN.sub(_show, html)


def _show(hidden: re.Match[str]) -> str:
    formula = base64.urlsafe_b64decode(hidden[2]).decode()
    drawn = convert(formula.replace(r"\arg", r"\mathrm{arg}\,"), display=hidden[1])
    # A formula that is wider than a phone scrolls by itself.
    return drawn if hidden[1] == "inline" else f'<span style="display: block; overflow: auto hidden">{drawn}</span>'

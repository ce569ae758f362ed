"""Markdown with mathematics to HTML: `$…$` and `$$…$$` become MathML, which browsers draw without any script.

Raw HTML is shown as it is written, never passed through; addresses that run code are dropped (markdown-it's rule), and
a picture that lies on another machine becomes a link, so that a page never loads anything from outside.
"""

import html
import re
from functools import cache
from typing import Any


def render_markdown(text: str, *, heading_shift: int = 1) -> str:
    """HTML of a Markdown text; `heading_shift` makes `#` an <h2> and so on, below the page's own heading."""
    return _kept_together(str(_parser().render(text, {"shift": heading_shift})))


def render_inline(text: str) -> str:
    """HTML of one sentence, without a paragraph around it."""
    return _kept_together(str(_parser().renderInline(text, {"shift": 0})))


def _kept_together(page: str) -> str:
    """A formula and the comma after it on one line."""
    return re.sub(r"(<math (?:(?!</math>).)*</math>)([,.;:!?)]+)", r'<span class="whole">\1\2</span>', page)


def mathml(latex: str, *, display: bool = False) -> str:
    """MathML of a formula; one that cannot be read is shown as its LaTeX source."""
    from xml.etree.ElementTree import tostring

    from latex2mathml.converter import convert_to_element

    try:
        tree = convert_to_element(_UNSEEN.sub("", latex), display="block" if display else "inline")
        for node in tree.iter():
            # The converter writes characters as entities in the text, and whatever \text or \href held beside them:
            # read them here, so that the serialiser escapes it all, and keep only attributes that lay out.
            node.text = html.unescape(node.text) if node.text else None
            node.attrib = {k: _WIDTHS.get(v, v) for k, v in node.attrib.items() if k in _LAYOUT}
            if node.tag == "mi" and node.text == "~":  # \sim, a relation with room on both sides
                node.tag, node.text = "mo", "∼"
            if node.tag == "mover" and len(node) == 2 and html.unescape(node[1].text or "") in _BARS:
                node.tag, node.attrib = "mrow", {"class": "over"}  # a line by the style sheet: few fonts stretch it
                node.remove(node[1])
        found = tostring(tree, encoding="unicode")
    except Exception:  # the converter has no error class of its own: IndexError, KeyError and its own mixed
        found = f'<code class="formula">{html.escape(latex.strip())}</code>'
    return f'<span class="display">{found}</span>' if display else found


_UNSEEN = re.compile(r"\\(?:tag|label)\{[^}]*\}|\\nonumber(?![a-zA-Z])")
_LAYOUT = frozenset(
    "xmlns display displaystyle scriptlevel stretchy fence form minsize maxsize width height depth voffset lspace "
    "rspace accent accentunder movablelimits largeop symmetric separator mathvariant columnalign columnspacing "
    "columnlines rowspacing rowlines linethickness notation".split()
)
_BARS = ("\u00af", "\u203e", "\u2015", "\u005f")
_WIDTHS = {"negativethinmathspace": "-0.167em", "negativemediummathspace": "-0.222em"}


def escape_markdown(text: Any) -> str:
    """Words as words, on one line, fit for a table's cell: nothing in them marks up; formulas ($…$) stay."""
    pieces = " ".join(str(text).split()).split("$")
    if len(pieces) % 2 == 0:  # dollars that are no pairs are dollars
        pieces = ["$".join(pieces).replace("$", "\\$")]
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(r"([`*_\[\]<>|#~]|\\(?!\$))", r"\\\1", pieces[i])
    for i in range(1, len(pieces), 2):
        pieces[i] = pieces[i].replace("|", r"\vert ").replace("<", r"\lt ").replace(">", r"\gt ")
    return "$".join(pieces)


@cache
def _parser() -> Any:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.use(
        dollarmath_plugin, allow_labels=False, allow_digits=False, double_inline=True,
        renderer=lambda content, options: mathml(content, display=options["display_mode"]),
    )
    for rule in ("math_inline", "math_inline_double", "math_block"):
        parser.add_render_rule(rule, _math)
    for rule in ("heading_open", "heading_close"):
        parser.add_render_rule(rule, _heading)
    parser.add_render_rule("image", _image)
    parser.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


def _math(self: Any, tokens: Any, at: int, options: Any, env: Any) -> str:
    return mathml(tokens[at].content, display=tokens[at].type != "math_inline")


def _heading(self: Any, tokens: Any, at: int, options: Any, env: Any) -> str:
    token = tokens[at]
    token.tag = f"h{min(6, int(token.tag[1]) + (0 if token.meta.get('shifted') else env.get('shift', 0)))}"
    token.meta["shifted"] = True
    return str(self.renderToken(tokens, at, options, env))


def _image(self: Any, tokens: Any, at: int, options: Any, env: Any) -> str:
    token = tokens[at]
    source = str(token.attrGet("src") or "")
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//|\\\\", source) and not source.startswith("data:image/"):
        return f'<a href="{html.escape(source)}">{html.escape(token.content or source)}</a>'
    return str(self.image(tokens, at, options, env))

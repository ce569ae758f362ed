r"""TeX formulas as Unicode for a terminal: `$\omega_0 x^2$` becomes ω₀x².

pylatexenc reads the TeX and knows the symbols; what is ours is that a fraction keeps its meaning when written on one
line, and that scripts become Unicode's own where all their characters have one, `^(…)` where not.
"""

import re
from functools import cache
from typing import Any

_DIGITS = "0123456789+-=()"
_RAISED = str.maketrans(_DIGITS + "abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVW⊤*−′",
                        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵀ*⁻′")
_LOWERED = str.maketrans(_DIGITS + "aehijklmnoprstuvxβγρφχ−", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ₋")
_SILENT = re.compile(r"left|right|middle|[bB]igg?[lrm]?|(display|text|script)style|(no)?limits|nonumber|!|notag")
_SPACED = set("∈∉≥≤≠≈∼≃∝→←↦⇒⇔≡⊂⊆≪≫≔")
_OPERATORS = set("×·±∓∘⊙⊗⊕∗")  # as close as the author wrote them
_SYMBOLS = {
    ",": " ", ";": " ", ":": " ", " ": " ", "quad": "  ", "qquad": "    ", "\\": "\n", "|": "‖", "top": "⊤",
    "mid": " | ", "colon": ":", "lvert": "|", "rvert": "|", "lVert": "‖", "rVert": "‖", "prime": "′", "dots": "…",
    "ldots": "…", "cdots": "…", "{": "{", "}": "}", "arg": "arg",
}
_LINES = {"aligned", "align", "align*", "split", "gathered", "equation", "equation*", "alignedat"}


def to_unicode(tex: str) -> str:
    """The formula in Unicode; several lines only where the TeX has several (aligned equations, cases)."""
    from pylatexenc.latexwalker import LatexWalker

    tex = re.sub(r"\\[tdc]frac(?![A-Za-z])", r"\\frac", tex.strip())
    nodes, _, _ = LatexWalker(f"${tex}$", tolerant_parsing=True).get_latex_nodes()
    text = "".join(_render(getattr(node, "nodelist", None) or [node]) for node in nodes)
    lines = (re.sub(r"[ \t]+", " ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _render(nodes: list[Any]) -> str:
    """The nodes as text; a script is the next character, macro or group after `^` or `_`."""
    out, script = "", ""
    nodes = list(nodes)
    position = 0
    while position < len(nodes):
        node = nodes[position]
        position += 1
        if node is None:
            continue
        kind = type(node).__name__
        if kind == "LatexCharsNode":
            for char in node.chars:
                if script and not char.isspace():
                    out, script = out + _script(script, char), ""
                elif char in "^_":
                    script = char
                else:
                    out += "′" if char == "'" else char
            continue
        if kind == "LatexMacroNode" and node.macroname in ("operatorname", "mathop") and position < len(nodes):
            text, position = _render([nodes[position]]), position + 1
        else:
            text = _one(node, kind)
        if script:
            made, script = _script(script, text.strip()), ""
            out += made + (getattr(node, "macro_post_space", "") if made[0] in "^_" else "")
        elif re.fullmatch(r"[A-Za-z]{2,}", text):  # a function's name keeps apart from its neighbours
            after = nodes[position] if position < len(nodes) else None
            touches = after is None or getattr(after, "chars", "")[:1] in tuple("(^_[,).")
            out += (" " if out[-1:].isalnum() else "") + text + ("" if touches else " ")
        else:
            spaced = text in _SPACED or (text in _OPERATORS and out.endswith(" "))
            out += f" {text} " if spaced else text
    return out


def _one(node: Any, kind: str) -> str:
    if kind == "LatexGroupNode":
        return _render(node.nodelist)
    if kind == "LatexSpecialsNode" and node.specials_chars in ("&", "~"):
        return " " if node.specials_chars == "~" else ""
    if kind == "LatexEnvironmentNode" and node.environmentname in _LINES:
        return _render(node.nodelist)
    if kind == "LatexEnvironmentNode" and node.environmentname == "cases":
        rows = _render(node.nodelist).split("\n")
        return "\n".join(("⎧ " if i == 0 else "⎩ " if i == len(rows) - 1 else "⎨ ") + r for i, r in enumerate(rows))
    if kind == "LatexMacroNode":
        name = node.macroname
        parts = [_render([part]) for part in (node.nodeargd.argnlist if node.nodeargd else []) if part is not None]
        if _SILENT.fullmatch(name):
            return ""
        if name in _SYMBOLS:
            return _SYMBOLS[name]
        if name == "frac" and len(parts) == 2:
            return f"{_bracketed(parts[0])}/{_bracketed(parts[1])}"
        if name == "sqrt" and parts:
            return f"{_script('^', parts[0]) if len(parts) == 2 else ''}√{_bracketed(parts[-1])}"
        if name in ("overline", "bar") and parts:
            # A bar over a long expression is a mean; character by character it could not be read.
            return "".join(char + "\u0305" for char in parts[-1]) if len(parts[-1]) <= 3 else f"⟨{parts[-1]}⟩"
        if name in ("text", "mathrm", "textrm", "mathit", "operatorname", "boldsymbol", "bm") and parts:
            return parts[-1]
    text = str(_converter().node_to_text(node))
    return text or (f"\\{node.macroname}" if kind == "LatexMacroNode" else "")


@cache
def _converter() -> Any:
    from pylatexenc.latex2text import LatexNodes2Text

    return LatexNodes2Text(math_mode="text")


def _bracketed(text: str) -> str:
    """In brackets unless it is one word, one number, or one call."""
    text = text.strip()
    alone = re.fullmatch(r"[^\s+\-−/(){}\[\],=]+(\([^()]*\))?|\([^()]*\)|‖[^‖]*‖|\|[^|]*\|", text)
    return text if alone else f"({text})"


def _script(mark: str, text: str) -> str:
    table = _RAISED if mark == "^" else _LOWERED
    if text and all(ord(char) in table for char in text):
        return text.translate(table)
    return mark + (text if len(text) == 1 else f"({text})")

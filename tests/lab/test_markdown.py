"""Markdown and formulas as HTML: what is drawn, and what never gets through."""

from xml.etree import ElementTree

import pytest

from precis.lab.markdown import escape_markdown, mathml, render_inline, render_markdown

M = "{http://www.w3.org/1998/Math/MathML}"


def test_formulas_become_mathml():
    tree = ElementTree.fromstring(mathml(r"\frac{d}{2}"))
    assert [node.text for node in tree.iter(f"{M}mi")] == ["d"]
    assert tree.find(f".//{M}mfrac") is not None and tree.get("display") == "inline"
    display = ElementTree.fromstring(mathml(r"x^2", display=True))
    assert display.tag == "span" and display[0].get("display") == "block"


def test_relations_and_bars():
    assert "<mo>∼</mo>" in mathml(r"W \sim U")
    assert 'class="over"' in mathml(r"\overline{x}")


def test_a_formula_that_cannot_be_read_is_shown_as_its_source():
    assert mathml(r"a < \frac{") == r'<code class="formula">a &lt; \frac{</code>'


ATTACKS = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "[x](javascript:alert(1))",
    r"$\text{<script>alert(1)</script>}$",
    r"$\href{javascript:alert(1)}{x}$",
    r"$$\text{</math><script>alert(1)</script>}$$",
    r"$\class{x}{\style{a:b}{y}}$",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "<iframe src=//a.b></iframe>",
    r"$\frac{<script>}{$",
    "`<script>`",
]


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("render", [render_markdown, render_inline])
def test_nothing_that_runs_gets_through(attack, render):
    tree = ElementTree.fromstring(f"<body>{render(attack)}</body>")
    for node in tree.iter():
        assert node.tag.replace(M, "") not in ("script", "img", "iframe")
        assert not any(name.startswith("on") or name == "style" for name in node.attrib)
        assert not node.get("href", "").startswith(("javascript:", "data:"))


def test_pictures_from_elsewhere_are_links():
    page = render_markdown("![far](https://a.b/c.png) ![farther](//a.b/c.png) ![near](figure.png)")
    assert page.count("<img") == 1 and 'src="figure.png"' in page
    assert '<a href="https://a.b/c.png">far</a>' in page


def test_headings_stand_below_the_pages_own():
    assert render_markdown("# A\n\n## B") == "<h2>A</h2>\n<h3>B</h3>\n"
    assert render_markdown("## B", heading_shift=0) == "<h2>B</h2>\n"


def test_tables_money_and_one_sentence():
    assert '<div class="wide"><table>' in render_markdown("|a|b|\n|-|-|\n|1|2|")
    assert "costs $5 and $6" in render_markdown("costs $5 and $6")
    assert render_inline("the *best* one") == "the <em>best</em> one"


def test_a_comma_stays_with_its_formula():
    assert render_inline("with $x$, too").count('<span class="whole"><math') == 1


@pytest.mark.parametrize(
    "text", ["a|b *c* _d_ `e` [f](g) <b>h</b> #i ~j", "back\\slash", "5 $ | and no more", "$a$ <x> $b$ | \\"]
)
def test_escaped_words_come_back_as_they_were(text):
    page = render_markdown(f"| x |\n| --- |\n| {escape_markdown(text)} |")
    cells = list(ElementTree.fromstring(f"<body>{page}</body>").iter("td"))
    assert len(cells) == 1 and not set(node.tag for node in cells[0].iter()) & {"em", "code", "a", "b", "strong"}
    if "$a$" not in text:
        assert "".join(cells[0].itertext()) == text

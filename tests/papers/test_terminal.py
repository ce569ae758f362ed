import io

from rich.console import Console

from precis.lab import words
from precis.lab.events import Event
from precis.papers import terminal, verdict_table
from precis.papers.verdicts import Shown


def text_of(renderable, width=100) -> str:
    out = Console(file=io.StringIO(), width=width)
    out.print(renderable)
    return out.file.getvalue()


def test_markdown_with_formulas_tables_and_code():
    source = (
        "# Head\n\nA *b* $\\omega_0^2$ costs $5 to $7.\n\nCode `$x$`.\n\n$$\na = \\frac{b}{c} \\\\\nd = e\n$$\n\n"
        "| a | b |\n|---|---|\n| $\\alpha$ | [link](https://x.org) |\n\n```\n$y_1$\n```\n\n<!-- hidden -->\n"
    )
    text = text_of(terminal.markdown(source))
    for part in ("Head", "A b ω₀² costs $5 to $7.", "Code $x$.", "    a = b/c", "    d = e", "α", "$y_1$", "https://x.org"):
        assert part in text, part
    assert "hidden" not in text and "$$" not in text


def test_commands_stay_on_their_line_to_be_copied(capsys):
    command = "precis run siren " + " ".join(f"--option-{i} {i}" for i in range(20))
    terminal.show(terminal.markdown(f"Try\n\n```\n{command}\n\nprecis list\n```\n\nand\n\n    {command}\n"))
    assert capsys.readouterr().out.splitlines().count(f"  {command}") == 2


def test_a_page_says_verdict_scale_and_what_to_try(toy):
    name = f"{toy.id}/up_beats_down"
    report = {"verdict": "inconclusive", "profile": "quick", "n": 3, "scale": "tiny", "reason": "both sides"}
    text = text_of(terminal.page(toy, {name: Shown(None, report)}, {"rl": "pip install it"}), width=200)
    assert "inconclusive at quick (tiny, n = 3), recorded: both sides" in text
    assert "Counting up with ω₀ ends higher" in text and "ℒ = (a+b)/2" in text
    assert f"precis run {toy.id} --help" in text and "pip install it" in text
    assert "https://arxiv.org/abs/2006.10000" in text


def test_both_verdicts_are_named_where_one_s_own_is_smaller(toy):
    small = {"verdict": "supported", "profile": "quick", "n": 3, "scale": "tiny", "reason": "it holds"}
    large = {"verdict": "contradicted", "profile": "full", "n": 5, "scale": "large", "reason": "ruled out"}
    stand = {f"{toy.id}/up_beats_down": Shown(small, large, small)}
    text = text_of(terminal.page(toy, stand, {}), width=200)
    assert "contradicted at full (large, n = 5), recorded: ruled out" in text
    assert "supported at quick (tiny, n = 3), yours" in text
    text = text_of(terminal.listing([toy], stand), width=200)
    assert " 1✗ (yours 1✓) " in text and "(yours …) of your own, at a smaller profile" in text
    text = text_of(terminal.listing([toy], {f"{toy.id}/up_beats_down": Shown(None, large)}), width=200)
    assert " 1✗ " in text and "yours" not in text


def test_progress_piped_is_plain_lines_at_a_modest_rate():
    out = Console(file=io.StringIO(), width=100)
    with terminal.progress(out) as hear:
        for step in range(1, 1001):
            hear({"event": "log", "step": step, "total": 1000, "scalars": {"loss": 1 / step, "odd": None}})
        hear({"event": "note", "text": "a [note]"})
    lines = out.file.getvalue().splitlines()
    assert lines[0].startswith("1/1000  loss 1  odd not finite") and lines[-1] == "note: a [note]"
    assert lines[-2].startswith("1000/1000  loss 0.001") and len(lines) < 20


def test_the_accuracy_of_a_training_batch_is_called_so():
    assert terminal.scalars({"loss": 0.25, "accuracy": 0.9}) == "loss 0.25  batch accuracy 0.9"
    assert terminal.scalars({"accuracy": 0.9}) == "accuracy 0.9"


def test_the_time_left_of_another_phase_is_told_by_its_own_pace(monkeypatch):
    """Ten minutes of training, then pictures of a second each."""
    clock = [0.0]
    monkeypatch.setattr(terminal, "monotonic", lambda: clock[0])
    out = Console(file=io.StringIO(), width=100)
    hear = terminal.Progress(out)
    for step, total, seconds in [(s, 60, 10) for s in range(1, 61)] + [(s, 64, 1) for s in range(1, 8)]:
        clock[0] += seconds
        hear({"event": "log", "step": step, "total": total, "scalars": {}})
    lines = [line for line in out.file.getvalue().splitlines() if "/64" in line]
    assert lines and lines[-1].split("  ")[-1].strip() == "59 s left", lines


def test_progress_on_a_terminal_is_a_bar():
    out = Console(file=io.StringIO(), width=100, force_terminal=True)
    with terminal.progress(out) as hear:
        hear({"event": "log", "step": 5, "total": 10, "scalars": {"loss": 0.25}})
    assert "50%" in out.file.getvalue() and "loss 0.25" in out.file.getvalue()


def test_that_a_sample_is_being_made_is_seen_on_a_terminal_alone():
    out, piped = (Console(file=io.StringIO(), width=100, force_terminal=terminal) for terminal in (True, False))
    for shown in (out, piped):
        with terminal.progress(shown) as hear:
            hear({"event": "sample"})
    assert "making the built-in sample" in out.file.getvalue() and piped.file.getvalue() == ""
    with terminal.progress(out) as hear:
        hear({"event": "sample"})
        (task,) = hear._bar.tasks
        hear({"event": "note", "text": "it was made"})
        assert task.description == ""
        hear({"event": "log", "step": 1, "total": 20, "scalars": {}})
        assert (task.description, task.completed, task.total) == ("", 1, 20)


def test_a_bar_goes_back_for_another_phase():
    out = Console(file=io.StringIO(), width=100, force_terminal=True)
    with terminal.progress(out) as hear:
        for step, total in ((9, 10), (10, 10), (1, 20)):
            hear({"event": "log", "step": step, "total": total, "scalars": {}})
        task = hear._bar.tasks[0]
        assert (task.completed, task.total, task.finished) == (1, 20, False)


def entry(**more):
    row = {"text": "psnr of up above down", "effect": 2.0, "interval": [1.0, 3.0], "holds": True, "n": 5, "note": "",
           "counts": True, "unit": "seed", "sabotaged": None}
    broken = row | {"holds": False, "effect": -1.0, "interval": [-2.0, -0.5], "sabotaged": {"flat": "up"}}
    return {
        "id": "toy/claim", "statement": "It is $x^2$.", "verdict": "supported", "reason": "", "ran": True,
        "profile": "quick", "scale": "tiny", "n": 5, "hypotheses": [row, broken], "preconditions": [], "alpha": 0.05,
        "failures": [], "seconds": 12.0,
    } | more


def broken_row(of):
    return next(row for row in of["hypotheses"] if row["sabotaged"])


def test_the_table_of_verdicts_in_words():
    failed = {"arm": "up", "seed": 1, "error": "Traceback\n  x\nValueError: broke\n"}
    entries = [
        entry(), entry(id="toy/b", verdict=None, ran=False, reason="it takes images", hypotheses=[], n=0, seconds=0.0),
        entry(id="toy/c", verdict="inconclusive", reason="undecided", failures=[failed] * 5),
        entry(id="toy/d", verdict=None, reason="smoke: no verdict is read", profile="smoke"),
    ]
    text = text_of(verdict_table.table(entries), width=200)
    assert "toy/claim  ✓ supported  at quick (tiny, 5 seeds)" in text and "It is x²." in text
    for row in entries[0]["hypotheses"]:
        assert words.sentence(row) in text and "interval" in words.sentence(row)
    assert "✓ broken on purpose (lost, as it must): " in text
    few = broken_row(entries[0]) | {"holds": None, "interval": None, "n": 2, "note": "n = 2: 3 are the least"}
    told = text_of(verdict_table.table([entry(hypotheses=[few])]), width=200)
    assert "? broken on purpose (undecided: too little to tell): " in told
    assert "toy/b  – not run" in text and "it takes images" in text
    assert "failed: up, seed 1: ValueError: broke" in text and "and 2 more trials failed" in text
    assert "1 supported, 1 inconclusive, 1 no verdict, 1 not run; 36 s of trials." in text


def test_a_broken_arm_that_does_not_lose_is_marked():
    rows = entry()["hypotheses"]
    marks = {}
    for holds, effect in ((True, 1.0), (False, -1.0), (None, 0.1), (None, None)):
        broken = rows[1] | {"holds": holds, "effect": effect}
        text = text_of(verdict_table.table([entry(hypotheses=[rows[0], broken])]), width=200)
        marks[holds, effect] = next(line.strip()[0] for line in text.splitlines() if "broken on purpose" in line)
    assert list(marks.values()) == ["✗", "✓", "?", "?"]


def test_progress_of_a_check_piped():
    out = Console(file=io.StringIO(), width=200)
    with verdict_table.progress(out) as hear:
        for done in range(1, 101):
            hear(Event("done", "toy/claim", arm="up", seed=done, done=done, planned=100, left=100.0 - done))
        hear(Event("failed", "toy/claim", arm="up", seed=3, error="Traceback\nValueError: broke"))
        hear(Event("verdict", "toy/claim", entry=entry()))
    lines = out.file.getvalue().splitlines()
    assert len(lines) < 20 and lines[0].startswith("1/100  toy/claim up seed 1")
    assert lines[-2:] == ["failed: toy/claim up seed 3: ValueError: broke", "toy/claim: supported"]


def test_progress_of_a_check_on_a_terminal():
    out = Console(file=io.StringIO(), width=200, force_terminal=True)
    with verdict_table.progress(out) as hear:
        hear(Event("log", "toy/claim", arm="up", seed=2, scalars={"loss": 0.5}, done=3, planned=10, left=42.0))
    assert "3/10" in out.file.getvalue() and "42 s left" in out.file.getvalue() and "loss 0.5" in out.file.getvalue()

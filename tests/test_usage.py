"""What is wrong on the command line, in one line."""

import pytest

from precis.cli import main


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run siren --stps 3", "no option --stps; did you mean --steps?; see precis run siren --help"),
        ("run siren --steps abc", "--steps must be a whole number, got 'abc'; see precis run siren --help"),
        ("run siren --lr x", "--lr must be a number, got 'x'; see precis run siren --help"),
        ("run deep_image_prior x.png --size 96",
         "--size must be one of middle, paper, small, got '96'; see precis run deep_image_prior --help"),
        ("run siren a b", "too many arguments: b; see precis run siren --help"),
        ("check siren --profile fast",
         "--profile must be one of full, paper, quick, smoke, got 'fast'; see precis check --help"),
        ("serve --port x", "--port must be a whole number, got 'x'; see precis serve --help"),
        ("show", "missing: a paper's id or alias; see precis show --help"),
    ],
)  # fmt: skip
def test_a_slip_is_told_in_one_line(capsys, command, said):
    assert main(command.split()) == 2
    assert capsys.readouterr().err == f"precis: {said}\n"


def test_help_names_the_input_and_leaves_out_defaults_that_say_nothing(capsys):
    pages = []
    for command in (["run", "deep_image_prior"], ["run", "supcon"], ["check"], ["sweep"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        pages.append(capsys.readouterr().out)
    assert not [word for page in pages for word in ("None)", "False)", "(default: )", "[[STR") if word in page]
    assert all("[OPTIONS] [INPUT]" in page for page in pages[:2])
    assert all("[OPTIONS] PAPER[/CLAIM] …" in page for page in pages[2:])
    assert "(default: 0)" in pages[0] and "(default: quick)" in pages[2]


def test_help_is_no_slip(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", "siren", "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and "--steps INT" in said and "--task {fit,resample" in said and "{None}" not in said


def test_an_option_may_be_given_as_none():
    from precis.cli.run import parse
    from precis.papers.catalogue import find

    _, job = parse(find()["siren"], ["--steps", "None", "--task", "None", "--size", "64"])
    assert (job.steps, job.task, job.size) == (None, None, "64")

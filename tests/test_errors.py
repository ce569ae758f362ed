import pytest

from precis import errors


@pytest.mark.parametrize(
    ("extra", "absent", "told"),
    [
        ("cluster", {"ray"}, "this needs ray, which is not installed: pip install ray"),
        ("sat", {"pysat"}, "this needs python-sat, which is not installed: pip install python-sat"),
        ("onnx", {"onnx", "onnxruntime"},
         "this needs onnx, onnxruntime, which are not installed: pip install onnx onnxruntime"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_as_pip_names_it(monkeypatch, extra, absent, told):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name in absent else object())
    with pytest.raises(errors.InputError) as caught:
        errors.need(extra)
    assert str(caught.value) == told
    assert told.endswith(errors.install_line(extra))


def test_nothing_is_said_of_what_is_there(monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: object())
    for extra in errors.EXTRAS:
        errors.need(extra)


def test_every_module_has_its_extra_in_the_project_file():
    """The names of the install line are those of pyproject.toml."""
    import re
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    for extra, modules in errors.EXTRAS.items():
        wanted = " ".join(project["optional-dependencies"][extra])
        for module in modules:
            assert re.search(rf"\b{re.escape(errors._PIP.get(module, module))}\b", wanted), (extra, module)

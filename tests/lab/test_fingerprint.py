import enum
import os
import shutil
import subprocess
import sys
import textwrap
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from precis.errors import InputError
from precis.lab import fingerprint, syntax
from precis.lab.claim import Claim
from precis.lab.fingerprint import canonical, data_fingerprint, source_fingerprint, trial_key
from precis.lab.loading import PaperSource, claims_of, load_module

# A package of papers with every way to import; `{p}` is its name, new for every test
FILES = {
    "__init__.py": "",
    "side.py": "HABIT = 1\n",
    "papers/__init__.py": '"""The papers."""\n',
    "papers/one/__init__.py": "SCALE = 2.0\n",
    "papers/one/claims.py": '''
        """Claims of the paper."""
        from typing import TYPE_CHECKING
        from dataclasses import dataclass
        import math
        import numpy as np
        from precis.lab.claim import Claim, Profile
        from {p}.lazy import psnr
        from {p}.plain import helper as assistant
        import {p}.deep.inner.tool as tool
        from . import SCALE, tasks
        from .near import NEAR
        if TYPE_CHECKING:
            from {p}.types_only import T

        BUDGET = 3

        def outside(x):
            """Doubles."""
            return 2 * x

        class Base(Claim):
            """What both share."""
            width = 8

            def load(self, settings, source):
                """The data."""
                from {p}.loader import read
                return read(source)

            def inherited(self):
                return 1

        class First(Base):
            """The first claim."""
            name = "first"
            statement = "it works"
            arms = ("a", "b")
            sabotaged = {{}}
            hypotheses = (1,)
            preconditions = ()
            profiles = {{"quick": Profile(settings=None)}}
            takes = ("image",)
            untried = "all else"
            by_arm = True
            runs = "both"
            tuning = None
            depth: int = 5

            def trial(self, arm, seed, settings, data, record):
                """Train."""
                import {p}.whole as w
                from .. import sibling
                return {{"psnr": w.alpha(seed) + outside(1)}}

        class Second(Base):
            name = "second"
            runs = "both"

            def trial(self, arm, seed, settings, data, record):
                from {p}.only_second import x
                return {{"psnr": 2.0}}

        class Third(Base):
            name = "third"
            runs = "thirds"

        class Fourth(Base):
            name = "fourth"
            statement = "the same runs as the third"
            arms = ("c",)
            runs = "thirds"
    ''',
    "papers/one/tasks.py": "TASKS = 1\n",
    "papers/one/near.py": "from ..two.far import FAR\nNEAR = FAR\n",
    "papers/one/unused.py": "UNUSED = 1\n",
    "papers/two/__init__.py": "",
    "papers/two/far.py": "FAR = 1\n",
    "papers/sibling.py": "SIBLING = 1\n",
    "plain/__init__.py": "from .parts import helper\nfrom .others import unneeded\n",
    "plain/parts.py": "def helper(): return 1\n",
    "plain/others.py": "unneeded = 1\n",
    "lazy/__init__.py": '''
        """Names given lazily."""
        _HOMES = {{"image": ("psnr", "ssim"), "sound": ("pesq",)}}
        _HOME = {{name: module for module, names in _HOMES.items() for name in names}}

        def __getattr__(name):
            from importlib import import_module
            return getattr(import_module(f"{p}.lazy.{{_HOME[name]}}"), name)
    ''',
    "lazy/image.py": "from {p}.lazy.blocks import conv\ndef psnr(): return conv\ndef ssim(): return 2\n",
    "lazy/blocks.py": "conv = 1\n",
    "lazy/sound.py": "def pesq(): return 1\n",
    "deep/__init__.py": "from {p}.side import HABIT\n",
    "deep/inner/__init__.py": "",
    "deep/inner/tool.py": "def use(): return 1\n",
    "deep/inner/unused.py": "UNUSED = 1\n",
    "loader.py": "def read(source): return source\n",
    "whole/__init__.py": '''
        def __getattr__(name):
            from importlib import import_module
            return getattr(import_module("." + {{"alpha": "greek", "bet": "hebrew"}}[name], __name__), name)
    ''',
    "whole/greek.py": "def alpha(x): return x\n",
    "whole/hebrew.py": "def bet(x): return x\n",
    "only_second.py": "x = 1\n",
    "types_only.py": "T = int\n",
}  # fmt: skip

_numbers = iter(range(1000))


class Papers:
    """The package above, written to disk and imported; `edit` changes a file as a person would."""

    def __init__(self, base: Path) -> None:
        self.name = f"madeup{next(_numbers)}"
        self.folder = base / self.name
        for file, text in FILES.items():
            self.write(file, textwrap.dedent(text).format(p=self.name) if "{" in text else textwrap.dedent(text))
        self.claims = import_module(f"{self.name}.papers.one.claims")

    def write(self, file: str, text: str) -> None:
        (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / file).write_text(text)

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.folder / file).read_text()
        assert text.count(old) == 1, (file, old)
        (self.folder / file).write_text(text.replace(old, new))

    def of(self, claim: str = "First") -> str:
        return source_fingerprint(getattr(self.claims, claim))


@pytest.fixture
def papers(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return Papers(tmp_path)


CLAIMS = "papers/one/claims.py"


@pytest.mark.parametrize(
    "file, old, new",
    [
        (CLAIMS, '"""Claims of the paper."""', '"""Other words."""'),
        (CLAIMS, '"""Train."""', '"""Train it\n        well."""'),
        (CLAIMS, '    """Doubles."""\n', ""),
        (CLAIMS, "BUDGET = 3", "BUDGET   =   3   # a comment\n"),
        (CLAIMS, 'name = "first"', 'name = "premier"'),
        (CLAIMS, '"it works"', '"it works well"'),
        (CLAIMS, "hypotheses = (1,)", "hypotheses = (1, 2)"),
        (CLAIMS, "preconditions = ()", "preconditions = (3,)"),
        (CLAIMS, "settings=None", "settings=7"),
        (CLAIMS, '("a", "b")', '("a", "b", "c")'),
        (CLAIMS, 'takes = ("image",)', 'takes = ("audio",)'),
        (CLAIMS, '"all else"', "'much'"),
        (CLAIMS, 'return {"psnr": 2.0}', 'return {"psnr": 3.0}'),  # another claim's trial
        (CLAIMS, '"the same runs as the third"', '"words"'),
        ("only_second.py", "x = 1", "x = 2"),
        ("papers/one/unused.py", "1", "2"),
        ("lazy/sound.py", "return 1", "return 2"),
        ("lazy/__init__.py", '"sound": ("pesq",)', '"sound": ("pesq", "stoi")'),
        ("whole/hebrew.py", "return x", "return 2"),
        ("deep/inner/unused.py", "1", "2"),
        ("types_only.py", "int", "str"),
        ("papers/__init__.py", "The papers", "All papers"),
    ],
)
def test_what_computes_nothing_changes_nothing(papers, file, old, new):
    before = papers.of()
    papers.edit(file, old, new)
    assert papers.of() == before


@pytest.mark.parametrize(
    "file, old, new",
    [
        (CLAIMS, "w.alpha(seed)", "w.alpha(seed + 1)"),  # the trial
        (CLAIMS, "return read(source)", "return read(None)"),  # inherited load
        (CLAIMS, "return 1", "return 2"),  # an inherited method
        (CLAIMS, "return 2 * x", "return 3 * x"),  # a helper
        (CLAIMS, "BUDGET = 3", "BUDGET = 4"),
        (CLAIMS, "width = 8", "width = 9"),  # helper attributes, inherited and own
        (CLAIMS, "depth: int = 5", "depth: int = 6"),
        (CLAIMS, "def trial(self, arm, seed, settings, data, record):\n        \"\"\"Train",
         "@staticmethod\n    def trial(self, arm, seed, settings, data, record):\n        \"\"\"Train"),
        ("papers/one/__init__.py", "2.0", "3.0"),
        ("papers/one/tasks.py", "1", "2"),
        ("papers/one/near.py", "NEAR = FAR", "NEAR = -FAR"),
        ("papers/two/far.py", "1", "2"),  # two steps away, relative
        ("papers/sibling.py", "1", "2"),  # inside a function, relative
        ("plain/parts.py", "return 1", "return 2"),
        ("plain/others.py", "1", "2"),  # an __init__ that imports eagerly runs it
        ("lazy/image.py", "return conv", "return -conv"),  # given lazily
        ("lazy/image.py", "def ssim(): return 2", "def ssim(): return 3"),
        ("lazy/blocks.py", "1", "2"),
        ("deep/inner/tool.py", "return 1", "return 2"),  # import a.b.c as d
        ("deep/__init__.py", "HABIT", "HABIT as H"),  # runs on the way
        ("side.py", "1", "2"),
        ("loader.py", "return source", "return None"),  # inside a function, inherited
        ("whole/greek.py", "return x", "return 2 * x"),  # read off a package imported as a whole
    ],
)
def test_what_computes_changes_it(papers, file, old, new):
    before = papers.of()
    papers.edit(file, old, new)
    assert papers.of() != before


def test_claims_of_equal_runs_have_one_fingerprint_and_others_their_own(papers):
    assert papers.of("Third") == papers.of("Fourth")
    assert len({papers.of("First"), papers.of("Second"), papers.of("Third")}) == 3


def test_a_claim_of_ones_own_inherits_what_the_paper_computes_with(papers, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "claims.py").write_text(
        f"from {papers.name}.papers.one.claims import First\nfrom .more import extra\n"
        "class Mine(First):\n    name = 'mine'\n    arms = ('a', 'mine')\n"
        "    def trial(self, arm, seed, settings, data, record):\n        return extra\n"
    )
    (folder / "more.py").write_text("extra = 1\n")
    mine = claims_of(PaperSource(f"mine{papers.name}", folder))["mine"]
    seen = [source_fingerprint(mine)]
    for file, old, new, differs in [
        (CLAIMS, "w.alpha(seed)", "w.alpha(seed + 1)", True),
        ("whole/greek.py", "return x", "return 2 * x", True),
        (CLAIMS, '"it works"', '"it works well"', False),
        (CLAIMS, 'return {"psnr": 2.0}', 'return {"psnr": 3.0}', False),
    ]:
        papers.edit(file, old, new)
        seen.append(source_fingerprint(mine))
        assert (seen[-1] != seen[-2]) == differs, (file, old)
    (folder / "more.py").write_text("extra = 2\n")
    assert source_fingerprint(mine) != seen[-1]


def test_nothing_is_imported(papers):
    before = set(sys.modules)
    papers.of()
    assert set(sys.modules) == before and f"{papers.name}.loader" not in before


def test_a_file_that_is_not_python_is_named_with_its_line(papers):
    papers.write("loader.py", "x = 1\ndef read(:\n")
    with pytest.raises(InputError, match=r"loader\.py:2: not Python"):
        papers.of()


def test_a_claim_without_a_file():
    made: Any = type("Made", (Claim,), {"__module__": "nowhere", "name": "made"})
    with pytest.raises(InputError, match="not in a file"):
        source_fingerprint(made)


def test_what_counts_of_precis_itself(tmp_path):
    """On a copy of precis: errors count where imported, of the lab only lab.trial, and a lazy name its module."""
    root = Path(syntax.__file__).parents[2]
    shutil.copytree(root / "precis", tmp_path / "precis", ignore=shutil.ignore_patterns("__pycache__", "papers"))
    for name in ("nn/measured.py", "nn/unused.py", "lab/trial.py"):
        (tmp_path / "precis" / name).write_text("def measured(x):\n    return x\n")
    (tmp_path / "precis" / "nn" / "__init__.py").write_text(
        "_HOME = {'measured': 'measured', 'unused': 'unused'}\ndef __getattr__(name):\n    return _HOME[name]\n"
    )
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "claims.py").write_text(
        "from precis.errors import InputError\nfrom precis.lab import Claim, Greater\nimport precis\n"
        "class A(Claim):\n    name = 'a'\n"
        "    def trial(self, arm, seed, settings, data, record):\n        from precis.nn import measured\n"
    )
    script = (
        "from pathlib import Path; from precis.lab.loading import *; from precis.lab.fingerprint import *\n"
        "import sys, precis; assert precis.__file__.startswith(sys.argv[1]), precis.__file__\n"
        "print(source_fingerprint(claims_of(PaperSource('a', Path(sys.argv[1], 'paper')))['a']))"
    )

    def run() -> str:
        out = subprocess.run(
            [sys.executable, "-B", "-c", script, str(tmp_path)], text=True, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        assert out.returncode == 0, out.stderr
        return out.stdout

    (tmp_path / "precis" / "lab" / "hypotheses.py").write_text("class Greater: pass\n")
    seen = [run()]
    for name, differs in [("lab/claim.py", False), ("lab/hypotheses.py", False), ("lab/fingerprint.py", False),
                          ("nn/unused.py", False), ("lab/trial.py", True), ("nn/measured.py", True),
                          ("errors.py", False)]:  # fmt: skip
        with open(tmp_path / "precis" / name, "a") as file:
            file.write("\nADDED = 1\n")
        seen.append(run())
        assert (seen[-1] != seen[-2]) == differs, name


def test_sixty_modules_are_read_once(papers, monkeypatch):
    body = "".join(f"def f{i}(x):\n    return x * {i} + [1, 2]\n" for i in range(60))
    for i in range(60):
        papers.write(f"many/m{i}.py", f"from {papers.name}.many import m{i + 1}\n{body}" if i < 59 else body)
    papers.write("many/__init__.py", "")
    papers.edit("loader.py", "def", f"from {papers.name}.many import m0\ndef")
    before = papers.of()
    monkeypatch.setattr(syntax.ast, "parse", lambda *_, **__: pytest.fail("parsed again"))
    assert papers.of() == before
    monkeypatch.undo()
    papers.write("many/m59.py", "last = 1\n")
    assert papers.of() != before


def test_a_paper_in_a_bare_folder(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "claims.py").write_text(
        "from precis.lab.claim import Claim\nfrom .parts.net import net\nclass A(Claim):\n    name = 'a'\n"
    )
    (tmp_path / "parts" / "net.py").write_text("from ..more import more\nnet = 1\n")
    (tmp_path / "more.py").write_text("more = 1\n")
    source = PaperSource("bare", tmp_path)
    load_module(source, "claims")
    seen = [source_fingerprint(claims_of(source)["a"])]
    for name in ("parts/net.py", "more.py", "claims.py"):
        with open(tmp_path / name, "a") as file:
            file.write("z = 1\n")
        seen.append(source_fingerprint(claims_of(source)["a"]))
    assert len(set(seen)) == 4


# Settings and keys


@dataclass(frozen=True)
class Settings:
    width: int = 64
    lr: float = 1e-4
    sizes: tuple[int, ...] = (1, 2)
    extra: dict = field(default_factory=dict)


class Kind(enum.Enum):
    SINE = "sine"


def test_canonical_is_json_with_sorted_keys_and_exact_floats():
    assert canonical(Settings(extra={"b": None, "a": [True, 0.1]})) == \
        '{"extra":{"a":[true,0.1],"b":null},"lr":0.0001,"sizes":[1,2],"width":64}'
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})
    assert canonical(0.1 + 0.2) == "0.30000000000000004" and canonical(1) != canonical(1.0)
    assert canonical({3, 1, 2}) == "[1,2,3]" and canonical(Kind.SINE) == '"sine"'
    assert canonical(np.float64(0.5)) == "0.5" and canonical(np.int64(3)) == "3"


@pytest.mark.parametrize("value", [object(), {"a": lambda: 1}, {1: "a", "1": "b"}, np.zeros(2)])
def test_what_is_not_json_is_a_type_error(value):
    with pytest.raises(TypeError):
        canonical(value)


def test_every_part_of_a_key_counts():
    given: dict[str, Any] = dict(paper="siren", runs="fit", arm="a", seed=0, settings=Settings(), tuned={},
                                 device="cpu", data="d", source="s")  # fmt: skip
    other: dict[str, Any] = dict(paper="nerf", runs="x", arm="b", seed=1, settings=Settings(65), tuned={"lr": 0.1},
                                 device="cuda", data="e", source="t")  # fmt: skip
    keys = {trial_key(**given)} | {trial_key(**{**given, name: value}) for name, value in other.items()}
    assert len(keys) == 10 and all(len(key) == 64 for key in keys)
    assert trial_key(**{**given, "device": "cuda:1"}) == trial_key(**{**given, "device": torch.device("cuda")})


# Data


Point = namedtuple("Point", "x y")


@dataclass
class Pair:
    x: Any
    y: Any


DISTINCT = [
    None, True, False, 0, 1, 1.0, -0.0, 0.0, 1j, "", "a", b"a", "None", [], (), {}, set(), [1, 2], (1, 2), [[1], 2],
    [[1, 2]], {1, 2}, {"a": 1}, {"a": 1.0}, {1: "a"}, range(2), ["ab", "c"], ["a", "bc"], Point(1, 2), Pair(1, 2),
    Pair(2, 1),
    Kind.SINE, "sine", np.zeros(2), np.zeros(2, np.float32), np.zeros(3), np.zeros((2, 1)), np.zeros((1, 2)),
    np.array(0.0),
    np.array(["a", "b"]), np.array([b"a"]), np.array([1, None], object), np.zeros(2, [("a", "f4"), ("b", "i8")]),
    np.array(["2020-01-01"], "M8[D]"), np.zeros(0), np.zeros((0, 3)), np.zeros(2, bool), np.zeros(2, complex),
    torch.zeros(2), torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, 1),
    torch.zeros(2, dtype=torch.float16), torch.zeros(()), torch.zeros(0), torch.zeros(0, 3), torch.ones(2),
    torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.int64),
    torch.zeros(2).to_sparse(), torch.eye(2).to_sparse(), torch.eye(2),
]  # fmt: skip


def test_different_content_has_different_fingerprints():
    assert len({data_fingerprint(value) for value in DISTINCT}) == len(DISTINCT)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_compressed_sparse_tensors():
    eye, other = torch.eye(2).to_sparse_csr(), torch.tensor([[0.0, 1.0], [1.0, 0.0]]).to_sparse_csr()
    assert data_fingerprint(eye) == data_fingerprint(torch.eye(2).to_sparse_csr())
    assert len({data_fingerprint(t) for t in (eye, other, torch.eye(2), torch.eye(2).to_sparse_csc())}) == 4


def test_the_layout_in_memory_does_not_count():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, 5, generator=generator)
    same = [x.clone(), x.transpose(0, 2).contiguous().transpose(0, 2), torch.cat((x, x), 1)[:, :6],
            x.repeat_interleave(2, 0)[::2], x.clone().requires_grad_(), torch.nn.Parameter(x)]  # fmt: skip
    assert {data_fingerprint(t) for t in same} == {data_fingerprint(x)}
    four = torch.randn(2, 3, 4, 4, generator=generator)
    assert data_fingerprint(four.to(memory_format=torch.channels_last)) == data_fingerprint(four)
    z = torch.randn(3, 2, dtype=torch.complex64, generator=generator)
    assert data_fingerprint(z.conj()) == data_fingerprint(torch.conj_physical(z)) != data_fingerprint(z)
    assert data_fingerprint(z.conj().imag) == data_fingerprint(-z.imag.clone())
    a = x.numpy()
    assert {data_fingerprint(v) for v in (a.copy(), np.asfortranarray(a), np.tile(a, (1, 1, 2))[..., ::2] * 0 + a,
                                          a.astype(">f4"), a[::-1].copy()[::-1])} == {data_fingerprint(a)}  # fmt: skip
    wide = np.zeros(2, np.dtype([("a", "f4"), ("b", "i8")], align=True))
    wide.view(np.uint8).reshape(2, -1)[:, 4:8] = 255  # bytes between the fields
    assert data_fingerprint(wide) == data_fingerprint(np.zeros(2, [("a", "f4"), ("b", "i8")]))


def test_equal_containers_are_equal():
    assert data_fingerprint({"a": 1, "b": 2}) == data_fingerprint(OrderedDict(b=2, a=1))
    assert data_fingerprint({"x", "y", "z"}) == data_fingerprint(frozenset("zyx"))
    assert data_fingerprint(Pair([1], {"a": np.ones(2)})) == data_fingerprint(Pair([1], {"a": np.ones(2)}))


def test_one_changed_number_deep_inside_counts():
    def data(value: float) -> dict:
        return {"train": [Pair(np.arange(1000.0), Point("a", torch.full((3,), value)))], "test": None}

    assert data_fingerprint(data(1.0)) == data_fingerprint(data(1.0)) != data_fingerprint(data(1.0000001))


def test_a_path_stands_for_its_bytes(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("x")
    assert data_fingerprint(tmp_path / "a.txt") == data_fingerprint(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_text("y")
    assert data_fingerprint(tmp_path / "a.txt") != data_fingerprint(tmp_path / "b.txt")
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "f").write_text("x")
        (folder / "g").write_text("y")
    (two / "loop").symlink_to(two, target_is_directory=True)
    assert data_fingerprint(one) == data_fingerprint(two)
    (two / "g").rename(two / "h")
    assert data_fingerprint(one) != data_fingerprint(two)
    (one / "linked").symlink_to(two / "deep", target_is_directory=True)
    before = data_fingerprint(one)
    (two / "deep" / "f").write_text("z")
    assert data_fingerprint(one) != before
    with pytest.raises(InputError, match="no such file"):
        data_fingerprint(tmp_path / "none")


@pytest.mark.parametrize(
    "value, where",
    [
        ({"train": [1, object()]}, r"data\['train'\]\[1\] is a builtins.object"),
        (Pair(1, lambda: 0), r"data\.y is a builtins.function"),
        (torch.nn.Linear(1, 1), "data is a torch.nn.modules.linear.Linear"),
        (torch.Generator(), "Generator"),
        (np.array([object()]), r"data\[0\]"),
        (np.ma.array([1], mask=[True]), "masked array"),
        (torch.zeros(2, device="meta"), "meta tensor"),
    ],
)
def test_what_has_no_content_is_named_with_what_may_be(value, where):
    with pytest.raises(TypeError, match=where):
        data_fingerprint(value)


def test_torch_is_not_loaded_for_plain_data():
    code = (
        "import sys; from precis.lab.fingerprint import data_fingerprint\n"
        "data_fingerprint({'a': [1, 2.0, 'x']}); print({'torch', 'numpy'} & set(sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(fingerprint.__file__).parents[2])}
    out = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, env=env)
    assert out.stdout.strip() == "set()", out.stderr

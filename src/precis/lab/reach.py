"""Which files a claim computes with: the import statements, followed from its paper's `claims.py`.

Nothing is imported on the way, so a missing extra or a slow library does not matter.  Where a package gives a name
lazily (a `__getattr__` in its `__init__`), the submodule that defines the name is taken, and neither the `__init__`
nor its other submodules; where that cannot be told from the text, too much is taken rather than too little.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from precis.errors import InputError
from precis.lab.claim import Claim
from precis.lab.syntax import Code, File, Import, read

_HOUSE = "precis"
_FOLDER_PAPER = "precis_paper_"
_LAB, _LAB_TRIAL, _ERRORS = "precis.lab", "precis.lab.trial", "precis.errors"
# They only find papers and hand out names; importing a module below them runs nothing that computes.
_PASSED_BY = ("precis", "precis.papers")


def source_digests(claim_class: type[Claim]) -> dict[str, object]:
    """{module: hash of its code} of all that is reached, and the hashes of the claim class and its bases."""
    bases = [c for c in claim_class.__mro__ if issubclass(c, Claim) and not _left_out(c.__module__)]
    walk = _Walk({_HOUSE} | {c.__module__.partition(".")[0] for c in bases}, bases)
    for module in dict.fromkeys((_start(claim_class.__module__), *(c.__module__ for c in bases), _LAB_TRIAL)):
        walk.passing(module)
        walk.module(module)
    if unread := [c for c in bases if c.__module__ not in walk.digests]:
        raise InputError(f"the source of {unread[0].__module__}.{unread[0].__qualname__} is not in a file")
    return {"modules": {n: d for n, d in walk.digests.items() if d}, "claim": walk.claim_digests()}


def _start(module: str) -> str:
    """The `claims` module of the paper to which `module` belongs, else the module itself."""
    package = module
    while "." in package:
        package = package.rpartition(".")[0]
        if f"{package}.claims" in sys.modules:
            return f"{package}.claims"
    return module


def _left_out(module: str) -> bool:
    """The lab judges and records, and the errors only speak: neither moves a number."""
    return module != _LAB_TRIAL and (module in (_LAB, _ERRORS) or module.startswith(_LAB + "."))


@dataclass
class _Walk:
    roots: set[str]
    bases: list[type[Claim]]
    digests: dict[str, str] = field(default_factory=dict)
    members: set[tuple[str, str]] = field(default_factory=set)
    places: dict[str, Path | None] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)
    classes: dict[type[Claim], Code] = field(default_factory=dict)

    def claim_digests(self) -> list[str]:
        return [self.classes[c].digest for c in self.bases if c in self.classes and self.classes[c].digest]

    def find(self, module: str) -> Path | None:
        """The file of a module, the `__init__` or bare folder of a package; None if it is not ours."""
        if module not in self.places:
            self.places[module] = self._find(module)
        return self.places[module]

    def _find(self, module: str) -> Path | None:
        root, *parts = module.split(".")
        loaded = sys.modules.get(root)
        if loaded is None or not (root in self.roots or root.startswith(_FOLDER_PAPER)):
            return None
        if not parts and getattr(loaded, "__file__", None):
            return Path(str(loaded.__file__))
        for top in getattr(loaded, "__path__", ()):
            place = Path(top, *parts)
            for file in (place / "__init__.py", place.with_suffix(".py") if parts else place):
                if file.is_file():
                    return file
            if place.is_dir():
                return place
        return None

    def file(self, module: str) -> File | None:
        path = self.find(module)
        if path is None or path.suffix != ".py":
            return None
        if module not in self.files:
            given = vars(sys.modules[module]).values() if module in sys.modules else ()
            claims = [c for c in given if isinstance(c, type) and issubclass(c, Claim) and c.__module__ == module]
            self.files[module] = read(path, frozenset(c.__name__ for c in claims))
        return self.files[module]

    def is_package(self, module: str) -> bool:
        path = self.find(module)
        return path is not None and (path.name == "__init__.py" or path.is_dir())

    def passing(self, module: str) -> None:
        """The packages above a module, whose `__init__` runs first."""
        while "." in module:
            module = module.rpartition(".")[0]
            file = None if module in _PASSED_BY or _left_out(module) else self.file(module)
            if file is not None and not file.lazy:
                self.module(module)

    def module(self, module: str) -> None:
        """Count a whole module and what it imports."""
        if module in self.digests or _left_out(module):
            return
        file = self.file(module)
        if file is None:
            return
        self.digests[module] = file.code.digest
        counted = {c: file.claims[c.__name__] for c in self.bases
                   if c.__module__ == module and c.__name__ in file.claims}  # fmt: skip
        self.classes.update(counted)
        for code in (file.code, *counted.values()):
            for statement in code.imports:
                self.follow(module, statement, code.attributes)

    def follow(self, importer: str, statement: Import, attributes: frozenset[str]) -> None:
        target = statement.module
        if statement.level:
            package = importer if self.is_package(importer) else importer.rpartition(".")[0]
            for _ in range(statement.level - 1):
                package = package.rpartition(".")[0]
            target = f"{package}.{target}" if target else package
        if self.find(target) is None:
            return
        self.passing(target)
        if statement.name is None:
            self.reach(target, attributes)
            parent = target
            while "." in parent and not statement.renamed:  # `import a.b` gives `a`: what else is read off it?
                parent = parent.rpartition(".")[0]
                if parent not in _PASSED_BY and not _left_out(parent):
                    self.reach(parent, attributes)
        elif statement.name == "*":
            self.module(target)
            for child in self.children(target) if self.is_package(target) else ():
                if child.rpartition(".")[2] in self.mentioned(target):
                    self.module(child)
        else:
            self.member(target, statement.name, attributes)

    def reach(self, module: str, attributes: frozenset[str]) -> None:
        """A module as a whole; of a package that gives its names lazily, those that the importing file reads."""
        file = self.file(module)
        if not self.is_package(module) or (file is not None and not file.lazy):
            self.module(module)
            return
        given = self.mentioned(module) | {child.rpartition(".")[2] for child in self.children(module)}
        for name in sorted(given & attributes):
            self.member(module, name, attributes)

    def member(self, module: str, name: str, attributes: frozenset[str]) -> None:
        """One name of a module: a submodule, what the `__init__` holds, or what it gives lazily."""
        if (module, name) in self.members or _left_out(module):
            return
        self.members.add((module, name))
        if self.is_package(module) and self.find(f"{module}.{name}") is not None:
            self.reach(f"{module}.{name}", attributes)
            return
        file = self.file(module)
        if file is None or not self.is_package(module) or not file.lazy or name in file.bound:
            self.module(module)
            return
        children = self.children(module)
        said = [c for c in children if c.rpartition(".")[2] in self.mentioned(module)]
        giving = [c for c in said if self.gives(c, name)] or [c for c in children if self.gives(c, name)]
        for child in giving:
            self.member(child, name, attributes)
        for child in () if giving else said or [module, *children]:
            self.module(child)

    def gives(self, module: str, name: str) -> bool:
        file = self.file(module)
        return file is not None and (name in file.bound or (file.lazy and name in self.mentioned(module)))

    def mentioned(self, module: str) -> set[str]:
        """The words in a file's strings: in a lazy `__init__`, the names it gives and the submodules they are in."""
        file = self.file(module)
        return set() if file is None else {word for text in file.strings for word in (text, text.rpartition(".")[2])}

    def children(self, package: str) -> list[str]:
        path = self.find(package)
        folder = path.parent if path is not None and path.is_file() else path
        if folder is None:
            return []
        names = sorted(
            p.stem for p in folder.iterdir()
            if (p.suffix == ".py" and p.stem != "__init__") or (p / "__init__.py").is_file()
        )  # fmt: skip
        return [f"{package}.{name}" for name in names]

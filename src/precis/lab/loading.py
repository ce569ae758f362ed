"""Import a paper's Python files by package or by folder, in this process or in a worker.

A built-in paper is `precis.papers.<id>`, one of an installed package has that package's name, and a bare folder is
imported as `precis_paper_<id>`.  Nothing of a paper is ever pickled: a worker gets a `PaperSource` and imports it.
"""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from precis.lab.claim import Claim


@dataclass(frozen=True)
class PaperSource:
    """Where a paper's files are: an importable `package`, or a bare `folder` (then `package` is None)."""

    id: str
    folder: Path
    package: str | None = None

    @property
    def module_name(self) -> str:
        return self.package or f"precis_paper_{self.id}"


def load_module(source: PaperSource, name: str) -> ModuleType:
    """Import `name` ("job", "claims", …) of a paper; raises whatever the file itself raises."""
    if source.package is None and source.module_name not in sys.modules:
        _register_folder(source)
    return importlib.import_module(f"{source.module_name}.{name}")


def claims_of(source: PaperSource) -> dict[str, type[Claim]]:
    """The paper's claims by name, in the order of `claims.py`."""
    module = load_module(source, "claims")
    found = [
        c for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Claim) and c.name and c.__module__.startswith(source.module_name)
    ]
    return {c.name: c for c in found}


def _register_folder(source: PaperSource) -> None:
    init = source.folder / "__init__.py"
    spec = importlib.util.spec_from_loader(source.module_name, None, is_package=True)
    if init.exists():
        spec = importlib.util.spec_from_file_location(
            source.module_name, init, submodule_search_locations=[str(source.folder)]
        )
    assert spec is not None
    spec.submodule_search_locations = [str(source.folder)]
    module = importlib.util.module_from_spec(spec)
    sys.modules[source.module_name] = module
    if spec.loader is not None:
        spec.loader.exec_module(module)

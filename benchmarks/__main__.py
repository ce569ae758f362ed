"""Run the named benchmarks (default: all) and print one table."""

import importlib
import pkgutil
import sys

import benchmarks


def main(names: list[str]) -> None:
    """Columns are the union of the rows' keys, in the order in which they first appear."""
    available = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if not m.name.startswith("_")]
    for name in names or available:
        if name not in available:
            sys.exit(f"no benchmark {name!r}; there are {', '.join(available)}")
        rows = importlib.import_module(f"benchmarks.{name}").rows()
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = [columns, *([_show(row.get(c, "")) for c in columns] for row in rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
        print(f"\n{name}")
        for line in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _show(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main(sys.argv[1:])

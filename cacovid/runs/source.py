"""Which of our source files can change a run's numbers: the import closure of what it uses."""

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path


def source_sha256(modules: Iterable[str]) -> str:
    """Hex SHA-256 over the source of `modules` and of all they import from their own top-level packages.

    Read from the files, not from what happens to be loaded, so every process agrees. Names imported at run time
    (entry points, importlib) are not followed: pass those modules, too.

    Raises ModuleNotFoundError for one of `modules` without a source file: its changes would go unseen.
    """
    modules = list(modules)
    if unseen := [name for name in modules if _source(name) is None]:
        raise ModuleNotFoundError(
            f"no source file of {', '.join(unseen)} on the path; a folder of the same name as its package, in the "
            f"working directory or on PYTHONPATH, may hide it"
        )
    packages = {name.partition(".")[0] for name in modules}
    seen: dict[str, Path] = {}
    queue = list(modules)
    while queue:
        name = queue.pop()
        path = None if name in seen else _source(name)
        if path is None:
            continue
        seen[name] = path
        parents = [name.rpartition(".")[0]] if "." in name else []
        queue += [n for n in (*parents, *_imports(name, path)) if n.partition(".")[0] in packages]
    total = hashlib.sha256()
    for name in sorted(seen):
        total.update(name.encode() + b"\0" + hashlib.sha256(seen[name].read_bytes()).digest())
    return total.hexdigest()


def _source(name: str) -> Path | None:
    """The module's source file, found without importing its parents; None for a name that is no module
    (`from package import function`)."""
    top, *rest = name.split(".")
    root = _root(top)
    if root is None or not rest:
        return root
    path = root.parent.joinpath(*rest)
    found = [p for p in (path / "__init__.py", path.with_name(path.name + ".py")) if p.is_file()]
    return found[0] if found else None


@cache
def _root(top: str) -> Path | None:
    """Source file of a top-level package or module."""
    spec = importlib.util.find_spec(top)
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _imports(name: str, path: Path) -> frozenset[str]:
    """Names that the module imports, at any depth; `from a import b` gives both `a` and `a.b`."""
    status = path.stat()
    return _parsed_imports(name, path, status.st_size, status.st_mtime_ns)


@cache
def _parsed_imports(name: str, path: Path, size: int, mtime_ns: int) -> frozenset[str]:
    """Parsed once in this process for a file of this size and time: each run of a sweep asks for the same files."""
    return frozenset(_names(name, path))


def _names(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)

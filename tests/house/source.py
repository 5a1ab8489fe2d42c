"""The package's source as the house tests see it: files, syntax trees and what they import. Nothing is executed."""

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import referencenet

PACKAGE = Path(referencenet.__file__).parent
ROOT = PACKAGE.parents[1]


@dataclass(frozen=True)
class Import:
    """One import of a file of our own package: which, where, and whether it is hidden in a function.

    What `later` names counts as imported where it is named.
    """

    module: str
    line: int
    is_hidden: bool


@dataclass(frozen=True)
class Source:
    """One file of the package."""

    path: Path

    @property
    def name(self) -> str:
        """Dotted, as it is imported."""
        parts = self.path.relative_to(PACKAGE.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def folder(self) -> str:
        """The layer: `links` of referencenet.links.bank, "" of the top."""
        parts = self.path.relative_to(PACKAGE).parts
        return parts[0] if len(parts) > 1 else ""

    @property
    def is_front_door(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    def own_imports(self) -> list[Import]:
        """Every import of our own package, those for type checkers left out."""
        found: list[Import] = []
        self._collect(self.tree, False, found)
        return found

    def _collect(self, node: ast.AST, is_hidden: bool, found: list[Import]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                self._collect(ast.Module(child.orelse, []), is_hidden, found)
                continue
            if isinstance(child, ast.Call) and ast.unparse(child.func) == "later":
                names = [name.value for name in child.args if isinstance(name, ast.Constant)]
                own = [name for name in names if name.split(".")[0] == "referencenet"]
                found += [Import(name, child.lineno, is_hidden) for name in own]
            if isinstance(child, ast.ImportFrom):
                module = "." * child.level + (child.module or "")
                if child.level or module.split(".")[0] == "referencenet":
                    names = [alias.name for alias in child.names]
                    files = [n for n in names if (PACKAGE.parent / module.replace(".", "/") / f"{n}.py").is_file()]
                    found += [Import(f"{module}.{name}", child.lineno, is_hidden) for name in files]
                    found += [Import(module, child.lineno, is_hidden)] if len(files) < len(names) else []
            elif isinstance(child, ast.Import):
                own = [alias.name for alias in child.names if alias.name.split(".")[0] == "referencenet"]
                found += [Import(name, child.lineno, is_hidden) for name in own]
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            self._collect(child, is_hidden or inside, found)


def sources() -> list[Source]:
    """Every Python file of the package."""
    return [Source(path) for path in sorted(PACKAGE.rglob("*.py"))]

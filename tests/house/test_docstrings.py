"""Docstrings say what the code says: the same arguments, and a shape for every public tensor."""

import ast
import re

from house.source import sources

LAYERS = ("links", "networks", "checkpoints", "sampling", "media", "methods")
SHAPE = re.compile(r"\([^()]*,[^()]*\)|[Ss]haped like|[Ll]ikewise|scalar|as SDPA takes it")


def public_functions():
    """Public functions, and public methods of public classes, with the docstring that speaks for them."""
    for source in sources():
        if source.folder not in LAYERS:
            continue
        for node in source.tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{source.name}.{node.name}", node, ast.get_docstring(node)
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and inner.name == "forward":
                        yield f"{source.name}.{node.name}", inner, ast.get_docstring(inner) or ast.get_docstring(node)
                    elif isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{source.name}.{node.name}.{inner.name}", inner, ast.get_docstring(inner)
                    if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                        yield f"{source.name}.{node.name}", inner, ast.get_docstring(node)


FUNCTIONS = list(public_functions())


def arguments(node):
    """Names and annotations, without self."""
    found = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    return {
        a.arg: ast.unparse(a.annotation) if a.annotation else "" for a in found if a and a.arg not in ("self", "cls")
    }


def documented(docstring):
    """The entries of the Args section, with their text."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    if not section:
        return {}
    indent = len(section[1]) - len(section[1].lstrip(" "))
    entries = re.split(rf"^ {{{indent}}}(?=[*\w])", section[1], flags=re.MULTILINE)[1:]
    return {entry.partition(":")[0].strip("* "): entry.partition(":")[2] for entry in entries}


def test_docstrings_and_arguments_agree():
    complaints = []
    for name, node, docstring in FUNCTIONS:
        names = {part for entry in documented(docstring or "") for part in re.split(r"[,/\s*]+", entry) if part}
        if not docstring:
            complaints.append(f"{name} has no docstring")
        elif names and names != set(arguments(node)):
            complaints.append(f"{name} takes {sorted(arguments(node))}, its Args say {sorted(names)}")
    assert not complaints, "\n".join(complaints)


def test_public_tensors_have_a_shape():
    complaints = []
    for name, node, docstring in FUNCTIONS:
        entries = documented(docstring or "")
        for argument, annotation in arguments(node).items():
            if re.fullmatch(r"(torch\.)?Tensor( \| None)?", annotation):  # a number may be given as a scalar tensor too
                if not SHAPE.search(entries.get(argument, docstring or "")):
                    complaints.append(f"{name}: say the shape of {argument}, as in (batch, tokens, channels)")
        if node.returns and re.fullmatch(r"(torch\.)?Tensor", ast.unparse(node.returns)):
            if not SHAPE.search(docstring or ""):
                complaints.append(f"{name}: say the shape of what it returns")
    assert not complaints, "\n".join(complaints)

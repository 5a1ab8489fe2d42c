"""Nothing of ours is left on what belongs to others: no replaced forward, no bank or tensor stuck on a module."""

import ast

from house.source import sources

REGISTRATIONS = {"register_buffer", "register_parameter"}
GIVES_BACK = "referencenet.training.borrowed"  # a context manager; tests/training shows that nothing is left behind


def targets(node):
    """What a statement assigns to, if it is attributes."""
    if isinstance(node, ast.Assign):
        found = node.targets
    else:
        found = [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []
    return [target for target in found if isinstance(target, ast.Attribute)]


def is_own(expression):
    return isinstance(expression, ast.Name) and expression.id in ("self", "cls")


def is_bank(name):
    return name == "bank" or name.endswith("_bank")


def complaints_of(node):
    """What a node leaves on something that is not its own."""
    for target in targets(node):
        if target.attr == "forward":
            yield "assigns .forward; use a hook or an attention processor"
        if is_bank(target.attr) and not is_own(target.value):
            yield f"keeps .{target.attr} on something that is not its own; hand it over"
    if not isinstance(node, ast.Call):
        return
    if isinstance(node.func, ast.Name) and node.func.id == "setattr" and isinstance(node.args[1], ast.Constant):
        if node.args[1].value == "forward" or is_bank(node.args[1].value):
            yield f"sets .{node.args[1].value}; hand the value over instead"
    if isinstance(node.func, ast.Attribute) and node.func.attr in REGISTRATIONS and not is_own(node.func.value):
        yield "puts a tensor on a module that is not its own"


def test_nothing_is_left_on_modules():
    complaints = [
        f"{source.path}:{node.lineno} {complaint}"
        for source in sources()
        if source.name != GIVES_BACK
        for node in ast.walk(source.tree)
        for complaint in complaints_of(node)
    ]
    assert not complaints, "\n".join(complaints)


def test_no_module_keeps_a_bank():
    complaints = []
    for source in sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef) and any("Module" in ast.unparse(base) for base in node.bases):
                kept = {
                    t.attr for inner in ast.walk(node) for t in targets(inner) if is_own(t.value) and is_bank(t.attr)
                }
                complaints += [f"{source.path}:{node.lineno} {node.name} keeps {kept}; hand it over"] if kept else []
    assert not complaints, "\n".join(complaints)

"""Imports point one way, stand at the top, and name the file that defines what they import."""

from house.source import sources

LAYERS = [  # a folder imports only from those before it, and from those beside it
    ("links",),
    ("networks",),
    ("checkpoints",),
    ("media",),
    ("sampling",),
    ("preprocess",),
    ("pipelines",),
    ("methods",),
    ("paperdoll",),
    ("training",),
    ("builtin",),
    ("parity",),
    ("cli", "comfyui", "ui"),
]
BESIDE_METHODS = {"registry", "systems", "tiny"}  # files of methods/ that speak of all systems
RANK = {folder: rank for rank, folders in enumerate(LAYERS) for folder in folders}
FILES = sources()
MODULES = {source.name for source in FILES}
FOLDERS = {source.name for source in FILES if source.is_front_door}
IMPORTS = [(source, found) for source in FILES for found in source.own_imports()]


def listed(complaints):
    return "\n".join(complaints)


def where(source, found):
    return f"{source.path}:{found.line} imports {found.module}"


def is_method(module):
    """Whether a file is the one of a published system."""
    folder, _, name = module.rpartition(".")
    return folder == "referencenet.methods" and name not in BESIDE_METHODS


def test_every_folder_has_a_layer():
    assert {source.folder for source in FILES} - {""} <= RANK.keys(), "give the new folder a place in LAYERS"


def test_imports_stand_at_the_top_and_are_written_out():
    assert not (hidden := [f"{where(*i)} inside a function; move it to the top" for i in IMPORTS if i[1].is_hidden]), (
        listed(hidden)
    )
    relative = [f"{where(*i)}; write the whole name" for i in IMPORTS if i[1].module.startswith(".")]
    assert not relative, listed(relative)


def test_imports_name_the_defining_file():
    complaints = [
        f"{where(source, found)}, a folder; import from the file that defines it"
        for source, found in IMPORTS
        if not source.is_front_door and found.module not in MODULES - FOLDERS
    ]
    assert not complaints, listed(complaints)


def test_imports_point_upward():
    complaints = []
    for source, found in IMPORTS:
        layer = [*found.module.split("."), ""][1]
        if layer in RANK and source.folder and RANK[layer] > RANK[source.folder]:
            complaints.append(f"{where(source, found)}, which comes later; move what both need up")
    assert not complaints, listed(complaints)


def test_no_method_imports_a_method():
    complaints = [
        f"{where(source, found)}: a method imports a method; move what both need to networks/ or sampling/"
        for source, found in IMPORTS
        if is_method(source.name) and is_method(found.module)
    ]
    assert not complaints, listed(complaints)


def test_no_circles():
    """Between files; front doors only pass names on, and the test above keeps files from using them."""
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for source, found in IMPORTS:
        if not source.is_front_door and found.module in MODULES:
            graph[source.name].add(found.module)
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())

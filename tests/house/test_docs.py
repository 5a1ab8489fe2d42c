"""What the documentation shows runs: Python blocks, options of commands, links; public names stand in it."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer

from house.public import packages, public_names
from house.source import ROOT
from owned import write_owned
from referencenet.cli.again import DRAWING
from referencenet.cli.app import COMMANDS, MODULES
from referencenet.methods.registry import METHODS
from referencenet.methods.systems import entry_of
from referencenet.pipelines.drawing import drawing
from tiny import half_mask, picture, tiny

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
NEEDS_WEIGHTS = "<!-- needs released weights -->\n```python"  # such a block is compiled, and its imports run
WITH_CODE = [
    pytest.param(page, marks=[pytest.mark.slow] if page.name == "tour.md" else [], id=page.name)  # draws in earnest
    for page in PAGES
    if "```python" in page.read_text(encoding="utf-8")
]


def blocks(page, language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for found, block in fenced if found == language]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the pictures that the pages name, and a tiny model where they look for Stable Diffusion."""
    folder = tmp_path_factory.mktemp("docs")
    tiny("sd").pipe.save_pretrained(folder / "stable-diffusion-v1-5" / "stable-diffusion-v1-5")
    for number, name in enumerate(("hero", "garment")):
        picture(number).save(folder / f"{name}.png")
    half_mask().save(folder / "hero_mask.png")
    write_owned(folder)
    (folder / "tests").symlink_to(ROOT / "tests")
    return folder


@pytest.mark.parametrize("page", WITH_CODE)
def test_python_blocks_of_a_page_run_in_their_order(page, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    names: dict[str, object] = {}
    text = page.read_text(encoding="utf-8").replace(NEEDS_WEIGHTS, "```needs-weights")
    for language, block in re.findall(r"^```(python|needs-weights)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        code = compile(block, f"{page.name}: {block.splitlines()[0]}", "exec")
        if language == "needs-weights":
            code = "\n".join(line for line in block.splitlines() if line.startswith(("import ", "from ")))
        exec(code, names)  # the whole point of this test


def options_of_drawing_commands():
    """Which `refnet again` takes as well."""
    apps = [importlib.import_module(f"referencenet.cli.{name}").app for name in DRAWING]
    return [parameter for app in apps for parameter in typer.main.get_command(app).params]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_their_options_exist(page):
    for block in blocks(page, "console") + blocks(page, "bash") + blocks(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            if not line.removeprefix("$ ").startswith("refnet "):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[1].startswith("-"):
                continue
            assert words[1] in COMMANDS, f"{page}: there is no command {words[1]}"
            command = typer.main.get_command(
                importlib.import_module(f"referencenet.cli.{MODULES.get(words[1], words[1])}").app
            )
            inner = getattr(command, "commands", {})
            command = inner.get(words[2], inner.get("system", command)) if len(words) > 2 else command
            params = [*command.params, *(options_of_drawing_commands() if words[1] == "again" else ())]
            known = {option for parameter in params for option in parameter.opts} | {"--help"}
            unknown = {word.partition("=")[0] for word in words if word.startswith("-")} - known
            assert not unknown, f"{page}: {line!r} has options that {words[1]} does not know: {sorted(unknown)}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), f"{page}: nothing is at {target}"


README_IN_ORDER = (
    "in a film", "You have a Stable Diffusion model", "images/demo.jpg", "images/film.gif", "make demo",
    "activate && cd demo", "pip install dist/", "git+", "refnet generate", "import reference", "refnet ui",
    "comfyui install", "## What is different", "community pipelines |", "## The thirteen systems",
)  # fmt: skip
"""What it is and for whom, picture and film, set-up, three uses, what is different, the systems."""


def test_readme_answers_in_the_order_in_which_people_ask():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    places = [text.find(words) for words in README_IN_ORDER]
    assert -1 not in places
    assert places == sorted(places)


def test_every_public_name_is_documented():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    reference = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    bare = [
        f"{package}.{name}" for package, name, _ in public_names() if package == "referencenet" and name not in text
    ]
    assert not bare, f"no page speaks of {bare}"
    with_names = {package for package, _, _ in public_names()}
    missing = [name for name in packages() if name in with_names and f"::: {name}\n" not in reference]
    assert not missing, f"no page in docs/reference lists {missing}"


def test_pages_name_no_file_that_is_gone():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (ROOT / path).exists(), f"docs/architecture.md names {path}, which is gone"
    assert Path(ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


@pytest.mark.parametrize("row", [row for row in METHODS.values() if row.has_pipeline], ids=lambda row: row.name)
def test_a_systems_page_has_the_drawing_of_its_declaration(row):
    page = (ROOT / "docs" / "methods" / f"{row.name}.md").read_text(encoding="utf-8")
    expected = f"```text\n{drawing(entry_of(row).spec)}\n```"
    copied = f"copy what `refnet methods {row.name}` draws into docs/methods/{row.name}.md, once:\n{expected}"
    assert page.count(expected) == 1, copied


PLAIN = {"architecture", "index", "memory", "migration", "serving", "speed", "troubleshooting",
         "verify", "versions"}  # fmt: skip
"""Pages that speak of the code, of numbers or of commands; and lists of other pages."""
MOST_BYTES = 3_000_000


def test_pages_show_what_they_speak_of_and_pictures_stay_small():
    shown = [page for page in PAGES if page.parent.name != "reference" and page.stem not in PLAIN]
    bare = [page.name for page in shown if "![" not in page.read_text(encoding="utf-8")]
    assert not bare, f"show a picture on {bare}; benchmarks/docs_pictures.py and docs_systems.py draw them"
    files = [file for file in (ROOT / "docs").rglob("*") if file.suffix in (".gif", ".webp", ".png", ".jpg")]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES

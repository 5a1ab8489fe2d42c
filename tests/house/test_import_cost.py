"""Importing the package loads nothing that is not needed: counted in modules, in fresh processes."""

import json
import subprocess
import sys

OPTIONAL = {"cv2", "hypothesis", "mkdocs", "peft", "pytest", "resvg_py", "rich", "typer"}


def loaded_by(*statements):
    """The modules that a fresh process has loaded after each of the statements."""
    told = "; import json, sys; print(json.dumps(sorted(sys.modules)))"
    code = "\n".join(statement + told for statement in statements)
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return [set(json.loads(line)) for line in result.stdout.splitlines()[-len(statements) :]]


def test_import_alone_loads_no_other_package():
    (modules,) = loaded_by("import referencenet")
    packages = {name.split(".")[0] for name in modules}
    assert not packages & (OPTIONAL | {"torch", "diffusers", "transformers", "numpy", "PIL"})


def test_using_reference_costs_little_more_than_diffusers_and_loads_no_optional_package():
    theirs, ours = loaded_by("from diffusers import StableDiffusionPipeline", "from referencenet import *")
    optional = {name.split(".")[0] for name in ours - theirs} & OPTIONAL
    assert not optional, (
        f"{sorted(optional)} are loaded by `from referencenet import *`; import them where they are used"
    )
    assert len(ours) <= 1.2 * len(theirs), f"{len(ours)} modules are loaded, diffusers alone loads {len(theirs)}"

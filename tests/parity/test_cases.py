import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from golden import GOLDENS, all_goldens, copy_case
from referencenet.parity.cases import CaseError, load_case
from referencenet.parity.seeded import seeded

NAME = "reference_only-attn"


@pytest.mark.parametrize("folder", all_goldens(), ids=lambda folder: folder.name)
def test_golden_case_is_read_whole(folder: Path) -> None:
    case = load_case(folder)
    assert case.id == folder.name
    assert case.tolerance == case.content.get("tolerance", 1e-4)
    assert {name: list(value.shape) for name, value in case.expected.items()} == {
        name: value["shape"] for name, value in case.content["outputs"].items()
    }


def test_input_is_drawn_by_the_golden_rule() -> None:
    case = load_case(GOLDENS / NAME)
    expected = torch.from_numpy(seeded(f"{NAME}/input/latents", (1, 4, 8, 8), "normal"))
    assert torch.equal(case.input("latents"), expected)


def test_tolerance_of_the_case_is_used(tmp_path: Path) -> None:
    assert load_case(copy_case(NAME, tmp_path / "a", lambda c: c.update(tolerance=3e-3))).tolerance == 3e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("inputs"), r"lacks inputs; a case has id, method, kind"),
        (lambda c: c.update(inputs=[]), r"inputs is list; expected an object"),
        (lambda c: c["inputs"]["latents"].pop("shape"), r"input 'latents' needs a shape.*got None"),
        (lambda c: c["inputs"]["latents"].update(shape=[1, 0]), r"input 'latents' needs a shape.*got \[1, 0\]"),
        (lambda c: c["inputs"]["latents"].update(kind="poisson"), r"of kind 'poisson'; expected 'normal' or 'uniform'"),
        (lambda c: c["components"]["unet"].pop("config"), r"component 'unet' needs class, config and state_dict"),
        (lambda c: c["components"]["unet"].update(state_dict=[["a", [1]]]), r"must be a list of \[key, shape, kind\]"),
        (lambda c: c["outputs"].pop("final_latents"), r"outputs.safetensors holds .*final_latents.*case.json declares"),
        (lambda c: c.update(tolerance=-1), r"tolerance is -1; expected a positive number"),
        (lambda c: c.update(tolerance="much"), r"tolerance is 'much'; expected a positive number"),
    ],
)
def test_broken_case_is_refused_by_name(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        load_case(copy_case(NAME, tmp_path / "a", change))


def test_missing_folder_says_what_a_case_is(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"nowhere does not exist; give a case folder, which holds case.json"):
        load_case(tmp_path / "nowhere")


def test_file_in_place_of_a_folder_is_refused() -> None:
    with pytest.raises(CaseError, match=r"case.json is a file; give a case folder"):
        load_case(GOLDENS / NAME / "case.json")


def test_folder_without_case_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"there is no file .*case.json.*A case folder holds a case.json"):
        load_case(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", r"is not JSON"), ("[1]", r"holds a list; expected a JSON")])
def test_broken_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "case.json").write_text(text)
    with pytest.raises(CaseError, match=message):
        load_case(tmp_path)


def test_case_json_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "case.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CaseError, match=r"is not text in UTF-8"):
        load_case(tmp_path)


def test_missing_outputs_are_refused(tmp_path: Path) -> None:
    folder = copy_case(NAME, tmp_path / "a")
    (folder / "outputs.safetensors").unlink()
    with pytest.raises(CaseError, match=r"outputs.safetensors does not exist; a case without outputs proves nothing"):
        load_case(folder)


def test_damaged_outputs_are_refused(tmp_path: Path) -> None:
    folder = copy_case(NAME, tmp_path / "a")
    file = folder / "outputs.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CaseError, match=r"is not a safetensors file .*; copy it again"):
        load_case(folder)


def test_case_that_expects_nothing_is_refused(tmp_path: Path) -> None:
    folder = copy_case(NAME, tmp_path / "a", lambda c: c["outputs"].clear(), lambda o: o.clear())
    with pytest.raises(CaseError, match=r"holds none; case.json declares none"):
        load_case(folder)


def test_unknown_input_and_scalar_name_what_there_is() -> None:
    case = load_case(GOLDENS / NAME)
    with pytest.raises(CaseError, match=r"has no input 'poses' \(it has latents, negative_prompt_embeds"):
        case.input("poses")
    with pytest.raises(CaseError, match=r"has no scalar 'eta' \(it has attention_auto_machine_weight"):
        case.scalar("eta")


def test_manifest_that_is_not_the_models_is_refused(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        rows = content["components"]["unet"]["state_dict"]
        rows[:] = [["weight", [2, 2], "param"], ["gain", [3], "param"]]

    case = load_case(copy_case(NAME, tmp_path / "a", change))
    message = r"1 missing in the model: gain; 1 missing in the manifest: bias; 1 of another shape: weight"
    with pytest.raises(CaseError, match=message):
        case.fill(torch.nn.Linear(2, 5), "unet")


def test_case_json_is_never_trusted_to_be_small_or_flat() -> None:
    """A list of names in an error stays short, whatever the case holds."""
    case = load_case(GOLDENS / NAME)
    with pytest.raises(CaseError) as caught:
        case.fill(torch.nn.Linear(2, 5), "unet")
    assert "674 more" in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert json.dumps(str(caught.value))

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from golden import GOLDENS, all_goldens, copy_case, other_case
from referencenet.parity.cases import CaseError, load_case
from referencenet.parity.record import Produced
from referencenet.parity.report import as_json, exit_status, render, summary
from referencenet.parity.runners import find_runner, runners
from referencenet.parity.verify import CaseResult, compare, relative_error, verify

NAME = "reference_only-attn"


def printed(results: list[CaseResult]) -> str:
    console = Console(width=140, record=True, quiet=True)
    console.quiet = False
    with console.capture() as capture:
        console.print(render(results))
    return capture.get()


def only(results: list[CaseResult]) -> CaseResult:
    (result,) = results
    return result


@pytest.mark.parametrize("folder", all_goldens("reference_*"), ids=lambda folder: folder.name)
def test_golden_case_is_reproduced_through_the_public_api(folder: Path) -> None:
    result = only(verify([folder]))
    assert result.error is None
    assert result.status == "passed"
    assert {output.name for output in result.outputs} == load_case(folder).expected.keys()
    for output in result.outputs:
        assert output.relative_error is not None
        assert output.relative_error <= 1e-5, output.name  # the case asks for 1e-4


OTHERS: dict[str, dict[str, Any]] = {
    "both": {},
    "attention-only": {"reference_adain": False, "attention_auto_machine_weight": 0.35},
    "adain-only": {"reference_attn": False, "gn_auto_machine_weight": 0.5},
    "three-pictures": {"latents": [3, 4, 12, 20], "style_fidelity": 1.0},
    "one-step": {"steps": 1, "style_fidelity": 0.0},
    "five-steps": {"steps": 5, "reference_adain": False},
    "without-guidance": {"guidance": 0.5, "latents": [2, 4, 12, 20]},
    "odd-size": {"latents": [1, 4, 11, 13], "reference_adain": False},
    "one-reference-for-three": {"latents": [3, 4, 12, 20], "ref_latents": [1, 4, 12, 20]},
    "reference-of-another-size": {"ref_latents": [1, 4, 8, 16]},
}


@pytest.mark.parametrize("name", OTHERS)
def test_case_with_other_sizes_steps_and_scalars_is_reproduced(name: str, tmp_path: Path) -> None:
    """A UNet, scheduler, prediction type and scalars that no golden case has: the runner assumes nothing."""
    result = only(verify([other_case(tmp_path / name, **OTHERS[name])]))
    assert result.error is None
    assert [output.passed for output in result.outputs] == [True] * 3, result.outputs


def test_output_moved_by_little_fails(tmp_path: Path) -> None:
    """The verifier can fail: 2e-4 relative is twice the tolerance."""

    def move(outputs: dict[str, torch.Tensor]) -> None:
        final = outputs["final_latents"]
        outputs["final_latents"] = final + 2e-4 * final.norm() / final.numel() ** 0.5

    result = only(verify([copy_case(NAME, tmp_path / "a", change_outputs=move)]))
    assert result.status == "failed"
    assert {output.name: output.passed for output in result.outputs} == {
        "final_latents": False,
        "first_step_noise_pred_cfg_batch": True,
        "first_step_write_pass": True,
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["scalars"].update(style_fidelity=0.4),
        lambda c: c["scalars"].update(attention_auto_machine_weight=0.9),
        lambda c: c["scalars"].update(reference_adain=True),
        lambda c: c["scalars"].update(guidance=7.0),
        lambda c: c["scheduler"]["config"].update(set_alpha_to_one=True),
        lambda c: c["components"]["unet"]["config"].update(attention_head_dim=8),
    ],
    ids=["style_fidelity", "attention_weight", "adain", "guidance", "scheduler", "heads"],
)
def test_each_setting_of_the_case_is_read(change: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    """The expected outputs belong to the unchanged setting, so a runner that read the setting must miss them."""
    assert only(verify([copy_case(NAME, tmp_path / "a", change)])).status == "failed"


def test_one_changed_number_among_the_weights_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_wrongly(case: Any, module: torch.nn.Module, component: str) -> None:
        original(case, module, component)
        with torch.no_grad():
            module.get_parameter("conv_in.weight")[3, 1, 1, 1] += 0.5

    original = type(load_case(GOLDENS / NAME)).fill
    monkeypatch.setattr("referencenet.parity.cases.Case.fill", fill_wrongly)
    result = only(verify([GOLDENS / NAME]))
    assert [output.passed for output in result.outputs] == [False, False, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["scalars"].update(strength=0.5), r"unknown strength; the kind 'reference' .* knows the scalars"),
        (lambda c: c["inputs"].update(pose={"shape": [1]}), r"unknown pose; .* the inputs latents, negative_prompt"),
        (lambda c: c["scalars"].update(steps=2), r"unknown ref_noise_2"),
        (lambda c: c["scalars"].update(steps=4), r"has no input 'ref_noise_3'"),
        (lambda c: c["scalars"].update(steps=0), r"steps is 0; expected a whole number from 1"),
        (lambda c: c["scalars"].pop("guidance"), r"has no scalar 'guidance'"),
        (lambda c: c["scalars"].update(reference_attn=False), r"reference_attn and reference_adain are both off"),
        (lambda c: c["inputs"].pop("negative_prompt_embeds"), r"has no input 'negative_prompt_embeds'"),
        (lambda c: c["inputs"]["prompt_embeds"].update(shape=[2, 7, 16]), r"2 prompts cannot serve 1 latents"),
        (lambda c: c["components"].update(vae=c["components"]["unet"]), r"components are unet, vae; .* has one, unet"),
        (lambda c: c["components"]["unet"].update({"class": "Transformer"}), r"class of unet is 'Transformer'"),
        (lambda c: c["components"]["unet"]["config"].update(depth=3), r"UNet2DConditionModel refuses the config"),
        (lambda c: c["components"]["unet"]["state_dict"].pop(), r"1 missing in the manifest: conv_out.bias"),
        (lambda c: c.pop("scheduler"), r"scheduler is None; the kind 'reference' needs one"),
        (lambda c: c["scheduler"].update({"class": "Clock"}), r"'Clock' is not a scheduler of diffusers"),
        (
            lambda c: c["scheduler"].update({"class": "AutoencoderKL"}),
            r"'AutoencoderKL' is not a scheduler of diffusers",
        ),
        (lambda c: c["scheduler"]["config"].update(beta=3), r"DDIMScheduler refuses the configuration"),
        (lambda c: c.update(kind="pose"), r"no runner for reference_only/pose; this version knows .*/reference"),
        (lambda c: c.update(method=3), r"method is 3; expected a name"),
        (lambda c: c.pop("id"), r"id is None; expected a name"),
    ],
)
def test_case_that_asks_for_something_else_is_unreadable(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    result = only(verify([copy_case(NAME, tmp_path / "a", change)]))
    assert result.status == "unreadable", result
    assert result.error is not None
    with pytest.raises(CaseError, match=message):
        raise CaseError(result.error)


def test_output_that_the_kind_does_not_have_is_unreadable(tmp_path: Path) -> None:
    folder = copy_case(
        NAME,
        tmp_path / "a",
        lambda c: c["outputs"].update(depth={}),
        lambda o: o.update(depth=torch.zeros(1)),
    )
    assert "its kind has no output depth" in str(only(verify([folder])).error)


def test_unreadable_case_does_not_keep_the_others_from_running(tmp_path: Path) -> None:
    results = verify([tmp_path / "nowhere", GOLDENS / "reference_only-partial-weight"])
    assert [result.status for result in results] == ["unreadable", "passed"]
    assert exit_status(results) == 2


def test_error_of_the_mechanism_is_a_failure_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(case: Any) -> Produced:
        raise RuntimeError(f"no kernel for {case.id}")

    monkeypatch.setattr("referencenet.parity.systems.reference_only.RUNNERS", {"reference": broken})
    result = only(verify([GOLDENS / NAME]))
    assert (result.status, result.error) == ("failed", f"RuntimeError: no kernel for {NAME}")
    assert exit_status([result]) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_fail(value: float) -> None:
    case = load_case(GOLDENS / NAME)
    outputs = {name: torch.full_like(theirs, value) for name, theirs in case.expected.items()}
    assert not any(output.passed for output in compare(case, Produced(outputs, {})))


def test_wrong_shape_fails_and_says_so() -> None:
    case = load_case(GOLDENS / NAME)
    outputs = {name: theirs[..., :-1] for name, theirs in case.expected.items()}
    output = next(output for output in compare(case, Produced(outputs, {})) if output.name == "final_latents")
    assert (output.passed, output.note) == (False, "shape (1, 4, 8, 7), expected (1, 4, 8, 8)")


def test_output_left_out_needs_a_reason() -> None:
    case = load_case(GOLDENS / NAME)
    outputs = {name: theirs for name, theirs in case.expected.items() if name != "first_step_write_pass"}
    with pytest.raises(CaseError, match="its kind has no output first_step_write_pass"):
        compare(case, Produced(outputs, {}))
    reason = {"first_step_write_pass": "a detour"}
    skipped = {output.name: output for output in compare(case, Produced(outputs, reason))}["first_step_write_pass"]
    assert (skipped.relative_error, skipped.passed, skipped.note) == (None, True, "a detour")


def test_relative_error_is_the_norm_of_the_difference_over_the_norm_of_theirs() -> None:
    theirs = torch.tensor([3.0, 4.0])
    assert relative_error(theirs + torch.tensor([0.0, 0.5]), theirs) == pytest.approx(0.1)
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0
    assert relative_error(torch.ones(2), torch.zeros(2)) == float("inf")


def test_every_row_of_the_registry_is_found() -> None:
    for (method, kind), runner in runners().items():
        assert find_runner(method, kind) is runner


def test_report_ends_with_a_summary_and_shows_errors(tmp_path: Path) -> None:
    results = verify([GOLDENS / "reference_only-partial-weight", tmp_path / "nowhere"])
    lines = printed(results).rstrip().splitlines()
    assert lines[-1] == summary(results)
    assert lines[-1].startswith("1 of 2 cases passed, 1 unreadable, largest relative error ")
    assert any("nowhere does not exist; give a case folder" in line for line in lines)
    assert sum("first_step_write_pass" in line for line in lines) == 2  # its row and its note


def test_json_is_strict_and_complete(tmp_path: Path) -> None:
    def spoil(outputs: dict[str, torch.Tensor]) -> None:
        outputs["final_latents"] = outputs["final_latents"].clone().fill_(float("nan"))

    folders = [GOLDENS / "reference_only-partial-weight", copy_case(NAME, tmp_path / "a", change_outputs=spoil)]
    document = json.loads(as_json(verify([*folders, tmp_path / "nowhere"])), parse_constant=pytest.fail)
    assert document["exit_status"] == 1
    assert [case["status"] for case in document["cases"]] == ["passed", "failed", "unreadable"]
    errors = {output["name"]: output["relative_error"] for output in document["cases"][1]["outputs"]}
    assert errors["final_latents"] == "nan"
    assert errors["first_step_write_pass"] < 1e-5

"""Golden case folders, what the published way produces for them, and a case that no golden case resembles."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import published
import torch
from safetensors.torch import load_file, save_file

from referencenet.parity.seeded import fill, seeded, seeded_input

GOLDENS = Path(__file__).parent / "goldens"

OTHER_UNET = {
    "sample_size": [12, 20],
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [12, 24, 36],
    "layers_per_block": 1,
    "cross_attention_dim": 10,
    "attention_head_dim": [2, 3, 3],
    "norm_num_groups": 4,
}
OTHER_SCHEDULER = {
    "class": "DDIMScheduler",
    "config": {"beta_schedule": "linear", "prediction_type": "v_prediction", "clip_sample": False, "steps_offset": 1},
}
OTHER_SCALARS = {
    "reference_attn": True,
    "reference_adain": True,
    "style_fidelity": 0.3,
    "steps": 2,
    "guidance": 3.0,
    "attention_auto_machine_weight": 0.7,
    "gn_auto_machine_weight": 0.9,
}


def all_goldens(pattern: str = "*") -> list[Path]:
    """Return the folders of the copied golden cases whose names match."""
    return sorted(path.parent for path in GOLDENS.glob(f"{pattern}/case.json"))


def goldens_of(kind: str) -> list[Path]:
    """Return the folders of the copied golden cases of one kind."""
    return [folder for folder in all_goldens() if read_content(folder)["kind"] == kind]


def read_content(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's case.json."""
    return json.loads((folder / "case.json").read_text())


def run_published(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What the published way produces for a case.json of the kind "reference"."""
    case_id, scalars, inputs = content["id"], content["scalars"], content["inputs"]
    draw = {name: seeded_input(case_id, name, spec["shape"]) for name, spec in inputs.items()}
    part = content["components"]["unet"]
    unet = diffusers.UNet2DConditionModel(**part["config"]).eval()
    fill(unet, case_id, "unet")
    scheduler = getattr(diffusers, content["scheduler"]["class"])(**content["scheduler"]["config"])
    is_guided = scalars["guidance"] > 1
    setting = published.Setting(
        attention=scalars["reference_attn"],
        adain=scalars["reference_adain"],
        style_fidelity=scalars["style_fidelity"],
        attention_weight=scalars["attention_auto_machine_weight"],
        adain_weight=scalars["gn_auto_machine_weight"],
        is_guided=is_guided,
    )

    def halves(name: str) -> torch.Tensor:
        return torch.cat([draw[f"negative_{name}"], draw[name]]) if is_guided else draw[name]

    conditions: dict[str, Any] = {"encoder_hidden_states": halves("prompt_embeds")}
    if "pooled_prompt_embeds" in draw:
        text_embeds = halves("pooled_prompt_embeds")
        time_ids = torch.tensor([scalars["time_ids"]] * len(text_embeds))
        conditions["added_cond_kwargs"] = {"text_embeds": text_embeds, "time_ids": time_ids}
    call = published.Inputs(
        latents=draw["latents"],
        reference=draw["ref_latents"],
        noise=[draw[f"ref_noise_{i}"] for i in range(scalars["steps"])],
        conditions=conditions,
    )
    num_steps, guidance = scalars["steps"], scalars["guidance"]
    return published.sample(unet, scheduler, setting, call, num_steps=num_steps, guidance=guidance)


def other_content(case_id: str, latents: list[int], ref_latents: list[int], scalars: dict[str, Any]) -> dict[str, Any]:
    """A case.json with a UNet, sizes, scheduler and scalars that no golden case has."""
    unet = diffusers.UNet2DConditionModel(**OTHER_UNET)
    shapes = {
        "latents": latents,
        "ref_latents": ref_latents,
        "prompt_embeds": [latents[0], 5, 10],
        "negative_prompt_embeds": [latents[0], 5, 10],
        **{f"ref_noise_{i}": ref_latents for i in range(scalars["steps"])},
    }
    manifest = [[key, list(value.shape), "param"] for key, value in unet.state_dict().items()]
    return {
        "id": case_id,
        "method": "reference_only",
        "kind": "reference",
        "components": {"unet": {"class": "UNet2DConditionModel", "config": OTHER_UNET, "state_dict": manifest}},
        "scheduler": OTHER_SCHEDULER,
        "inputs": {name: {"shape": shape, "kind": "normal"} for name, shape in shapes.items()},
        "scalars": scalars,
    }


def write_case(folder: Path, content: dict[str, Any], outputs: dict[str, torch.Tensor]) -> Path:
    """Write a case folder with the given outputs."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {**content, "outputs": {name: {"shape": list(value.shape)} for name, value in outputs.items()}}
    (folder / "case.json").write_text(json.dumps(content))
    save_file({name: value.contiguous() for name, value in outputs.items()}, folder / "outputs.safetensors")
    return folder


def other_case(
    folder: Path, *, latents: list[int] | None = None, ref_latents: list[int] | None = None, **scalars: Any
) -> Path:
    """Write a case that no golden case resembles, its outputs from the published way."""
    latents = latents or [1, 4, 12, 20]
    content = other_content(folder.name, latents, ref_latents or latents, {**OTHER_SCALARS, **scalars})
    return write_case(folder, content, run_published(content))


def copy_case(
    name: str,
    folder: Path,
    change: Callable[[dict[str, Any]], object] = bool,
    change_outputs: Callable[[dict[str, torch.Tensor]], object] = bool,
) -> Path:
    """Copy a golden case, changing the content of its case.json and its outputs in place."""
    content, outputs = read_content(GOLDENS / name), load_file(GOLDENS / name / "outputs.safetensors")
    change(content)
    change_outputs(outputs)
    folder.mkdir(parents=True)
    (folder / "case.json").write_text(json.dumps(content))
    save_file(outputs, folder / "outputs.safetensors")
    return folder


def save_flashface(case: Path, folder: Path) -> None:
    """Write `flashface.ckpt` as it is released, with a golden case's weights and the aliases beside them."""
    part = read_content(case)["components"]["unet"]
    state = {
        key: torch.from_numpy(seeded(f"{case.name}/unet/{key}", shape)).reshape(tuple(shape))
        for key, shape, _ in part["state_dict"]
    }
    aliases = {key.removeprefix("ori_"): tensor for key, tensor in state.items() if key.startswith("ori_")}
    torch.save({**aliases, **state}, folder / "flashface.ckpt")

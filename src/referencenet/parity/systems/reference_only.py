"""The golden cases of Reference-Only and Reference-AdaIN, of the kind "reference", through the public API.

From case.json alone it builds a Stable Diffusion pipeline (SDXL's if the UNet has added conditions), fills its UNet
by the golden rule and generates inside `reference(...)`. A scalar or input that it does not know is an error: a case
that asks for something else must not pass by being half read.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from referencenet.links.adain import AdaIN
from referencenet.links.concat import Concat
from referencenet.methods.reference_only import Reference, reference
from referencenet.parity.cases import Case, CaseError, listed
from referencenet.parity.kinds import sample
from referencenet.parity.record import Produced, Runner
from referencenet.parity.system import refused, scheduler_of

LINKS = {
    "reference_attn": (Concat, "attention_auto_machine_weight"),
    "reference_adain": (AdaIN, "gn_auto_machine_weight"),
}
"""Scalar that switches a link on to the link, and to the scalar with its weight."""

SCALARS = {*LINKS, *(weight for _, weight in LINKS.values()), "guidance", "steps", "style_fidelity"}
OPTIONAL_SCALARS = {"eta", "guidance_rescale"}

WRITE_PASS_NOTE = "plain pass on the noised reference: our own write pass stops after its last site"


@torch.no_grad()
def run_reference(case: Case) -> Produced:
    """A call inside `reference(...)`, and what the published write pass gives at the first step.

    Raises:
        CaseError: the case lacks something or asks for something that this kind does not have.
    """
    check_names(case)
    pipe = build_pipeline(case)
    outputs = {"first_step_write_pass": first_write_pass(case, pipe)}
    links = [kind(weight=case.scalar(weight)) for switch, (kind, weight) in LINKS.items() if case.scalar(switch)]
    noise = [case.input(f"ref_noise_{i}") for i in range(case.scalar("steps"))]
    shown, fidelity = Reference(latents=case.input("ref_latents")), case.scalar("style_fidelity")
    numbers = {**case.scalars, "guidance_scale": case.scalar("guidance")}
    names = {"final": "final_latents", "raw": "first_step_noise_pred_cfg_batch"}
    with reference(pipe, shown, links=links, style_fidelity=fidelity, noise=noise):
        call = partial(pipe, **prompts(case))
        outputs |= sample(case, pipe, call, "latents_{}", steps="steps", numbers=numbers, **names)
    return Produced(outputs, {"first_step_write_pass": WRITE_PASS_NOTE})


def is_guided(case: Case) -> bool:
    """Whether the pipelines run an unconditional half: they do above a guidance scale of 1."""
    return case.scalar("guidance") > 1


def is_sdxl(case: Case) -> bool:
    """Whether the UNet takes pooled embeddings and sizes as added conditions."""
    return case.components["unet"]["config"].get("addition_embed_type") is not None


def check_names(case: Case) -> None:
    """Refuse components, scalars and inputs that this kind does not know, and values that cannot be."""
    if set(case.components) != {"unet"}:
        raise CaseError(f"{case.id}: components are {listed(case.components)}; the kind {case.kind!r} has one, unet")
    num_steps, sdxl = case.scalar("steps"), is_sdxl(case)
    if not isinstance(num_steps, int) or num_steps < 1:
        raise CaseError(f"{case.id}: steps is {num_steps!r}; expected a whole number from 1")
    if not (case.scalar("reference_attn") or case.scalar("reference_adain")):
        raise CaseError(f"{case.id}: reference_attn and reference_adain are both off; switch one of them on")
    scalars = {*SCALARS, *OPTIONAL_SCALARS, *(["time_ids"] if sdxl else [])}
    inputs = {"latents", "ref_latents", "prompt_embeds", "negative_prompt_embeds"}
    inputs |= {f"ref_noise_{i}" for i in range(num_steps)}
    inputs |= {"pooled_prompt_embeds", "negative_pooled_prompt_embeds"} if sdxl else set()
    unknown = (set(case.scalars) - scalars) | (set(case.inputs) - inputs)
    if unknown:
        raise CaseError(
            f"{case.id}: unknown {listed(unknown)}; the kind {case.kind!r} with these settings knows the scalars "
            f"{', '.join(sorted(scalars))} and the inputs {', '.join(sorted(inputs))}"
        )


def build_pipeline(case: Case) -> Any:
    """The case's pipeline, its UNet filled by the golden rule."""
    part = case.components["unet"]
    if part["class"] != "UNet2DConditionModel":
        raise CaseError(f"{case.id}: the class of unet is {part['class']!r}; the kind knows UNet2DConditionModel")
    with refused(case, part["class"]):
        unet = UNet2DConditionModel(**part["config"]).eval()
    case.fill(unet, "unet")
    return stable_diffusion(unet, scheduler_of(case))


def stable_diffusion(unet: UNet2DConditionModel, scheduler: Any) -> Any:
    """Stable Diffusion's pipeline, or SDXL's, that takes embeddings and returns latents."""
    if unet.config["addition_embed_type"] is None:
        names, absent = ("safety_checker", "feature_extractor"), {"requires_safety_checker": False}
        kind: Any = StableDiffusionPipeline
    else:
        names, absent = ("text_encoder_2", "tokenizer_2"), {"add_watermarker": False}
        kind = StableDiffusionXLPipeline
    absent |= dict.fromkeys(("vae", "text_encoder", "tokenizer", *names))
    pipe = kind(unet=unet, scheduler=scheduler, **absent)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def first_write_pass(case: Case, pipe: Any) -> Tensor:
    """The unlinked UNet on the reference noised to the first step, (guidance batch, 4, height, width)."""
    pipe.scheduler.set_timesteps(case.scalar("steps"))
    t = pipe.scheduler.timesteps[0]
    clean, noise = case.input("ref_latents"), case.input("ref_noise_0")
    rows = len(case.input("latents")) * (2 if is_guided(case) else 1)
    noised = pipe.scheduler.add_noise(repeated(case, clean, len(noise)), noise, t.reshape(1))
    noised = pipe.scheduler.scale_model_input(repeated(case, noised, rows), t)
    added: dict[str, Any] = {}
    if is_sdxl(case):
        text_embeds = halves(case, "pooled_prompt_embeds")
        time_ids = torch.tensor([case.scalar("time_ids")], dtype=text_embeds.dtype).expand(len(text_embeds), -1)
        added["added_cond_kwargs"] = {"text_embeds": text_embeds, "time_ids": time_ids}
    return pipe.unet(noised, t, halves(case, "prompt_embeds"), **added, return_dict=False)[0]


def repeated(case: Case, rows: Tensor, num_rows: int) -> Tensor:
    """Repeat a batch as a whole until it has the given number of rows: the order of guidance batches."""
    if num_rows % len(rows):
        raise CaseError(f"{case.id}: {len(rows)} rows cannot serve {num_rows}; correct the inputs' first sizes")
    return torch.cat([rows] * (num_rows // len(rows)))


def halves(case: Case, name: str) -> Tensor:
    """Embeddings of the guidance batch, unconditional half first; one row per latent, neighbours alike."""
    parts = [case.input(f"negative_{name}")] if is_guided(case) else []
    parts.append(case.input(name))
    num_images = images_per_prompt(case)
    return torch.cat([part.repeat_interleave(num_images, dim=0) for part in parts])


def images_per_prompt(case: Case) -> int:
    """How many latents each row of the prompt's embeddings serves."""
    num_latents, num_prompts = len(case.input("latents")), len(case.input("prompt_embeds"))
    if num_latents % num_prompts:
        raise CaseError(f"{case.id}: {num_prompts} prompts cannot serve {num_latents} latents; correct the inputs")
    return num_latents // num_prompts


def prompts(case: Case) -> dict[str, Any]:
    """What the pipeline's call is told, but for latents and numbers."""
    names = ["prompt_embeds", "pooled_prompt_embeds"] if is_sdxl(case) else ["prompt_embeds"]
    names += [f"negative_{name}" for name in names] if is_guided(case) else []
    told: dict[str, Any] = {name: case.input(name) for name in names}
    if is_sdxl(case):
        time_ids = case.scalar("time_ids")
        sizes = ("original_size", "crops_coords_top_left", "target_size")
        told |= {name: tuple(time_ids[2 * i : 2 * i + 2]) for i, name in enumerate(sizes)}
    return {**told, "num_images_per_prompt": images_per_prompt(case)}


RUNNERS: Mapping[str, Runner] = {"reference": run_reference}

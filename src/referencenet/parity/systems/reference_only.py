"""Runs the golden cases of the kind "reference": Reference-Only and Reference-AdaIN through the public API.

From case.json alone it builds a Stable Diffusion pipeline (SDXL's if the UNet has added conditions), fills its UNet
by the golden rule and generates inside `reference(...)`. A scalar or input that it does not know is an error: a case
that asks for something else must not pass by being half read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    SchedulerMixin,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from referencenet.links.adain import AdaIN
from referencenet.links.concat import Concat
from referencenet.methods.reference_only import Reference, reference
from referencenet.parity.cases import Case, CaseError, listed
from referencenet.parity.record import Produced, Runner

REQUIRED_SCALARS = (
    "attention_auto_machine_weight",
    "gn_auto_machine_weight",
    "guidance",
    "reference_adain",
    "reference_attn",
    "steps",
    "style_fidelity",
)
PIPELINE_SCALARS = {"eta": "eta", "guidance_rescale": "guidance_rescale"}
"""Optional scalars and the pipelines' arguments that they are."""

WRITE_PASS_NOTE = "plain pass on the noised reference: our own write pass stops after its last site"


Pipeline = Any
"""StableDiffusionPipeline or StableDiffusionXLPipeline; diffusers' types do not admit None for absent parts."""


@torch.no_grad()
def run_reference(case: Case) -> Produced:
    """Produce the outputs of a case of the kind "reference".

    Raises:
        CaseError: the case lacks something or asks for something that this kind does not have.
    """
    check_names(case)
    pipe = build_pipeline(case)
    write_pass = first_write_pass(case, pipe)
    final_latents, first_prediction = generate(case, pipe)
    outputs = {
        "final_latents": final_latents,
        "first_step_write_pass": write_pass,
        "first_step_noise_pred_cfg_batch": first_prediction,
    }
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
    scalars = {*REQUIRED_SCALARS, *PIPELINE_SCALARS, *(["time_ids"] if sdxl else [])}
    inputs = {"latents", "ref_latents", "prompt_embeds", "negative_prompt_embeds"}
    inputs |= {f"ref_noise_{i}" for i in range(num_steps)}
    inputs |= {"pooled_prompt_embeds", "negative_pooled_prompt_embeds"} if sdxl else set()
    unknown = (set(case.scalars) - scalars) | (set(case.inputs) - inputs)
    if unknown:
        raise CaseError(
            f"{case.id}: unknown {listed(unknown)}; the kind {case.kind!r} with these settings knows the scalars "
            f"{', '.join(sorted(scalars))} and the inputs {', '.join(sorted(inputs))}"
        )


def build_pipeline(case: Case) -> Pipeline:
    """Build the case's pipeline, its UNet filled by the golden rule; it takes embeddings and returns latents."""
    part = case.components["unet"]
    if part["class"] != "UNet2DConditionModel":
        raise CaseError(f"{case.id}: the class of unet is {part['class']!r}; the kind knows UNet2DConditionModel")
    unet = construct(case, UNet2DConditionModel, part["config"]).eval()
    case.fill(unet, "unet")
    parts: dict[str, Any] = {"unet": unet, "scheduler": build_scheduler(case), "vae": tiny_vae(unet)}
    pipe: Pipeline
    if is_sdxl(case):
        absent = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
        pipe = StableDiffusionXLPipeline(**parts, **absent, add_watermarker=False)
    else:
        absent = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
        pipe = StableDiffusionPipeline(**parts, **absent, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_vae(unet: UNet2DConditionModel) -> AutoencoderKL:
    """The smallest autoencoder that shrinks pictures 8 times; nothing is ever decoded."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4,) * 4,
        norm_num_groups=2,
        latent_channels=unet.config["in_channels"],
    )


def build_scheduler(case: Case) -> Any:
    """Build the scheduler that the case names, one of diffusers'."""
    entry = case.content.get("scheduler")
    if not isinstance(entry, dict) or not {"class", "config"} <= entry.keys():
        raise CaseError(f"{case.id}: scheduler is {entry!r}; the kind {case.kind!r} needs one with class and config")
    cls = getattr(diffusers, str(entry["class"]), None)
    if not (isinstance(cls, type) and issubclass(cls, SchedulerMixin)):
        raise CaseError(f"{case.id}: {entry['class']!r} is no scheduler of diffusers {diffusers.__version__}")
    return construct(case, cls, entry["config"])


def construct(case: Case, cls: type, config: Mapping[str, Any]) -> Any:
    """Call a class with the case's configuration; what it refuses is a CaseError."""
    try:
        return cls(**config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise CaseError(f"{case.id}: {cls.__name__} refuses the configuration in case.json: {error}") from error


def first_write_pass(case: Case, pipe: Pipeline) -> torch.Tensor:
    """The unlinked UNet on the reference noised to the first step, (guidance batch, 4, height, width)."""
    pipe.scheduler.set_timesteps(case.scalar("steps"))
    t = pipe.scheduler.timesteps[0]
    clean, noise, embeds = case.input("ref_latents"), case.input("ref_noise_0"), case.input("prompt_embeds")
    rows = len(case.input("latents")) * (2 if is_guided(case) else 1)
    noised = pipe.scheduler.add_noise(repeated(case, clean, len(noise)), noise, t.reshape(1))
    conditions: dict[str, Any] = {"encoder_hidden_states": halves(case, "prompt_embeds")}
    if is_sdxl(case):
        text_embeds = halves(case, "pooled_prompt_embeds")
        time_ids = torch.tensor([case.scalar("time_ids")], dtype=embeds.dtype).expand(len(text_embeds), -1)
        conditions["added_cond_kwargs"] = {"text_embeds": text_embeds, "time_ids": time_ids}
    noised = pipe.scheduler.scale_model_input(repeated(case, noised, rows), t)
    return pipe.unet(noised, t, **conditions, return_dict=False)[0]


def repeated(case: Case, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Repeat a batch as a whole until it has the given number of rows: the order of guidance batches."""
    if num_rows % len(rows):
        raise CaseError(f"{case.id}: {len(rows)} rows cannot serve {num_rows}; correct the inputs' first sizes")
    return torch.cat([rows] * (num_rows // len(rows)))


def halves(case: Case, name: str) -> torch.Tensor:
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


def build_links(case: Case) -> Sequence[Concat | AdaIN]:
    """The links that the case switches on, with its weights."""
    links: list[Concat | AdaIN] = []
    if case.scalar("reference_attn"):
        links.append(Concat(weight=case.scalar("attention_auto_machine_weight")))
    if case.scalar("reference_adain"):
        links.append(AdaIN(weight=case.scalar("gn_auto_machine_weight")))
    return links


def call_arguments(case: Case) -> dict[str, Any]:
    """Arguments of the pipeline's call, all from the case."""
    latents = case.input("latents")
    arguments: dict[str, Any] = {
        "latents": latents,
        "prompt_embeds": case.input("prompt_embeds"),
        "num_images_per_prompt": images_per_prompt(case),
        "num_inference_steps": case.scalar("steps"),
        "guidance_scale": case.scalar("guidance"),
        "output_type": "latent",
        "height": latents.shape[2] * 8,
        "width": latents.shape[3] * 8,
    }
    arguments |= {name: case.scalar(key) for key, name in PIPELINE_SCALARS.items() if key in case.scalars}
    names = ["pooled_prompt_embeds"] if is_sdxl(case) else []
    names += [f"negative_{name}" for name in ["prompt_embeds", *names]] if is_guided(case) else []
    arguments |= {name: case.input(name) for name in names}
    if is_sdxl(case):
        time_ids = case.scalar("time_ids")
        sizes = ("original_size", "crops_coords_top_left", "target_size")
        arguments |= {name: tuple(time_ids[2 * i : 2 * i + 2]) for i, name in enumerate(sizes)}
    return arguments


def generate(case: Case, pipe: Pipeline) -> tuple[torch.Tensor, torch.Tensor]:
    """Generate inside `reference`; returns the final latents and the UNet's output (guidance batch) of step 0."""
    last: dict[str, torch.Tensor] = {}
    first: dict[str, torch.Tensor] = {}

    def keep_last(module: torch.nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001 - a hook's signature
        last["sample"] = output[0]

    def keep_first(pipe: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
        first.setdefault("sample", last["sample"])
        return values

    noise = [case.input(f"ref_noise_{i}") for i in range(case.scalar("steps"))]
    hook = pipe.unet.register_forward_hook(keep_last)
    try:
        with reference(
            pipe,
            Reference(latents=case.input("ref_latents")),
            links=build_links(case),
            style_fidelity=case.scalar("style_fidelity"),
            noise=noise,
        ):
            latents = pipe(**call_arguments(case), callback_on_step_end=keep_first).images
    finally:
        hook.remove()
    return latents, first["sample"]


RUNNERS: Mapping[str, Runner] = {"reference": run_reference}

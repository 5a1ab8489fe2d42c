"""Runs IDM-VTON's golden cases through its public classes: resampler, garmentnet, tryonnet, sample, train and mask.

Weights are made under their published names and read as a published file would be, so that every case also tests the
key maps. Sizes, steps and scalars come from the case.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from referencenet.checkpoints.idm_vton import PUBLISHED, RESAMPLER, TRYON_NET
from referencenet.checkpoints.published import load_component
from referencenet.links.attach import attach, write
from referencenet.methods.idm_vton import SPEC, IDMVTONPipeline, training_loss
from referencenet.networks.image_prompt import with_image_prompt
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.record import Produced, Runner
from referencenet.pipelines.dressing import mask_to_latent_size
from referencenet.pipelines.passes import reading_plan
from referencenet.pipelines.spec import Shown
from referencenet.preprocess.agnostic import ARM_WIDTHS, agnostic_mask

FIRST = "down_blocks.1.attentions.0.transformer_blocks.0"
LAST = "up_blocks.1.attentions.2.transformer_blocks.1"

QUERIES_NOTE = "the garment's tokens as queries are computed for the comparison only: our reading does not make them"

TRAINED_ELSEWHERE = ("encoder_hid_dim", "encoder_hid_dim_type", "ip_num_tokens", "resampler")
"""Parts of TryonNet's published configuration that describe the image prompt."""

RESAMPLER_NAMES = {
    "dim": "hidden_dims", "depth": "depth", "dim_head": "dim_head", "heads": "heads", "num_queries": "num_queries",
    "embedding_dim": "embed_dims", "output_dim": "output_dims", "ff_mult": "ffn_ratio",
}  # fmt: skip


class GivenNoise(DDPMScheduler):
    """DDPM whose noise is given, one tensor per step."""

    noise: list[Tensor]

    def _get_variance(self, *_args: Any, **_kwargs: Any) -> Tensor:
        return torch.zeros(())  # `step` gives the mean; the noise is added below

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **_kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The mean of the previous latents plus the next given noise, as a tuple."""
        mean = super().step(model_output, timestep, sample, torch.Generator().manual_seed(0), return_dict=False)[0]
        if timestep == 0:
            return (mean,)
        return (mean + super()._get_variance(timestep) ** 0.5 * self.noise.pop(0),)


def component(case: Case, name: str, ours: str, config: Mapping[str, Any]) -> Any:
    """A component of ours, read from published names filled by the golden rule."""
    (file,) = PUBLISHED.files_of(ours)
    return load_component(PUBLISHED, ours, [(file, case.published_state(name), f"{case.id}/{name}")], {ours: config})


def resampler_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resampler's configuration in our names."""
    return {RESAMPLER_NAMES[key]: value for key, value in config.items()}


def tryon_parts(case: Case) -> tuple[Any, Any, Any]:
    """TryonNet, its resampler and GarmentNet."""
    config = case.components["tryon_net"]["config"]
    unet = {key: value for key, value in config.items() if key not in TRAINED_ELSEWHERE}
    return (
        component(case, "tryon_net", "unet", unet),
        component(case, "tryon_net", "image_projection", resampler_config(config["resampler"])),
        component(case, "garment_net", "reference_unet", case.components["garment_net"]["config"]),
    )


@contextmanager
def recorded(modules: Mapping[str, nn.Module]) -> Generator[dict[str, tuple[Tensor, Tensor]]]:
    """Inside, modules note their last (first input, output) under their names."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:  # noqa: ARG001 - a hook's signature
            found[name] = ((*args, *kwargs.values())[0], output)

        return hook

    handles = [module.register_forward_hook(keep(name), with_kwargs=True) for name, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def run_resampler(case: Case) -> Produced:
    """The resampler, layer by layer."""
    net = component(case, "resampler", "image_projection", resampler_config(case.components["resampler"]["config"]))
    watched: dict[str, nn.Module] = {"proj_in": net.proj_in}
    for i, layer in enumerate(net.layers):
        watched |= {f"layer{i}_ff": layer, f"attention{i}": layer.attn}
    with recorded(watched) as found:
        tokens = net(case.input("clip_hidden"))
    before = net.latents
    outputs = {"proj_in": found["proj_in"][1], "tokens": tokens}
    for i in range(len(net.layers)):
        outputs[f"layer{i}_attn"] = before + found[f"attention{i}"][1]
        before = outputs[f"layer{i}_ff"] = found[f"layer{i}_ff"][1]
    return Produced(outputs, {})


@torch.no_grad()
def run_garmentnet(case: Case) -> Produced:
    """GarmentNet's bank, in the order in which it is written."""
    net = component(case, "garment_net", "reference_unet", case.components["garment_net"]["config"])
    bank = write(
        net,
        case.input("cloth_latents"),
        timestep=case.scalar("timestep"),
        encoder_hidden_states=case.input("text_embeds_cloth"),
        links=[SPEC.link],
    )
    if len(bank.hidden) != case.scalar("num_features"):
        raise CaseError(
            f"{case.id}: num_features is {case.scalar('num_features')}, but its network has {len(bank.hidden)} sites"
        )
    return Produced({f"feature_{i:02}": value for i, value in enumerate(bank.hidden.values())}, {})


@torch.no_grad()
def run_tryonnet(case: Case) -> Produced:
    """One step of TryonNet, without and with guidance."""
    unet, resampler, garment_net = tryon_parts(case)
    timestep, scale = case.scalar("timestep"), case.scalar("guidance_scale")
    bank = write(
        garment_net,
        case.input("cloth_latents"),
        timestep=timestep,
        encoder_hidden_states=case.input("text_embeds_cloth"),
    )
    mask = mask_to_latent_size(case.input("mask"), tuple(case.inputs["mask"].shape[2:]))  # type: ignore[arg-type]
    sample = torch.cat(
        [case.input("latents"), mask, case.input("masked_image_latents"), case.input("pose_latents")], dim=1
    )
    persons = sample.shape[0]
    watched = {
        "attn1": unet.get_submodule(f"{FIRST}.attn1"), "attn2": unet.get_submodule(f"{FIRST}.attn2"),
        "block": unet.get_submodule(FIRST), "last_attn1": unet.get_submodule(f"{LAST}.attn1"),
        "last_block": unet.get_submodule(LAST), "add_embedding": unet.add_embedding,
    }  # fmt: skip

    def predict(guided: bool) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]], Tensor]:
        halves = ("negative_", "") if guided else ("",)
        text = torch.cat([case.input(f"{half}prompt_embeds") for half in halves])
        pooled = torch.cat([case.input(f"{half}pooled_prompt_embeds") for half in halves])
        states = [case.input(f"clip_hidden{'_uncond' if half else ''}") for half in halves]
        tokens = resampler(torch.cat(states))
        added = {"text_embeds": pooled, "time_ids": torch.tensor([case.scalar("time_ids")] * len(pooled))}
        passes = SPEC.guidance.passes(timestep, scale if guided else 1.0)
        plan = reading_plan(passes, persons, bank.rows)
        with attach(unet, [SPEC.link]) as link, link.reading(bank, plan=plan), recorded(watched) as found:
            noise = unet(
                sample.repeat(len(halves), 1, 1, 1), timestep, with_image_prompt(text, tokens), added_cond_kwargs=added
            )
        return noise.sample, found, tokens

    noise, found, tokens = predict(guided=False)
    guided, found_guided, _ = predict(guided=True)
    unconditional, conditional = guided.chunk(2)
    garment = {"first": bank.hidden[f"{FIRST}.attn1"], "last": bank.hidden[f"{LAST}.attn1"]}
    outputs = {
        "noise_pred": noise,
        "first_attn1": with_garment_queries(watched["attn1"], *found["attn1"], garment["first"])[:1],
        "first_attn2": found["attn2"][1][:1],
        "first_block": found["block"][1][:1],
        "last_attn1": with_garment_queries(watched["last_attn1"], *found["last_attn1"], garment["last"])[:1],
        "last_block": found["last_block"][1][:1],
        "add_embedding": found["add_embedding"][1],
        "ip_tokens": tokens,
        "noise_pred_cfg": guided,
        "first_attn1_cfg": found_guided["attn1"][1][[0, persons]],
        "guided": unconditional + scale * (conditional - unconditional),
    }
    return Produced(outputs, {"first_attn1": QUERIES_NOTE, "last_attn1": QUERIES_NOTE})


def with_garment_queries(attn: nn.Module, own: Tensor, read: Tensor, garment: Tensor) -> Tensor:
    """Our reading of the own tokens, and behind it what the garment's tokens would get as queries, (b, n + t, c)."""
    return torch.cat([read, attn(torch.cat([own, garment], dim=1))[:, own.shape[1] :]], dim=1)


def build_scheduler(case: Case, kind: type[DDPMScheduler]) -> Any:
    """The case's scheduler, which is DDPM."""
    config = dict(case.scalar("scheduler"))
    if config.pop("class") != "DDPMScheduler":
        found = case.scalar("scheduler")["class"]
        raise CaseError(f"{case.id}: the scheduler is {found!r}; the kind knows DDPMScheduler")
    return kind(**config)


@torch.no_grad()
def run_sample(case: Case) -> Produced:
    """The pipeline's loop from ready latents."""
    unet, resampler, garment_net = tryon_parts(case)
    scheduler = build_scheduler(case, GivenNoise)
    absent: dict[str, Any] = dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    pipe = IDMVTONPipeline(
        unet=unet, reference_unet=garment_net, image_projection=resampler, scheduler=scheduler, **absent
    )
    pipe.set_progress_bar_config(disable=True)
    steps, guidance = case.scalar("num_inference_steps"), case.scalar("guidance_scale")
    scheduler.noise = [case.input(f"variance_noise_{i}") for i in range(steps)]
    names = ["prompt_embeds", "pooled_prompt_embeds"]
    names += [f"negative_{name}" for name in names] if guidance > 1 else []
    outputs: dict[str, Tensor] = {}

    def keep_latents(_pipe: Any, i: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        outputs[f"latents_{i}"] = tensors["latents"]
        return tensors

    def keep_conditions(_module: nn.Module, args: Any, kwargs: Any) -> None:
        outputs["mask_latent"] = args[0][: case.inputs["latents"].shape[0], 4:5]
        outputs["time_ids"] = kwargs["added_cond_kwargs"]["time_ids"]

    handle = unet.register_forward_pre_hook(keep_conditions, with_kwargs=True)
    try:
        pipe(
            height=case.scalar("height"),
            width=case.scalar("width"),
            num_inference_steps=steps,
            guidance_scale=guidance,
            guidance_rescale=case.scalar("guidance_rescale"),
            **{name: case.input(name) for name in [*names, "latents", "mask_image", "masked_image_latents"]},
            densepose_latents=case.input("pose_latents"),
            garment_latents=case.input("cloth_latents"),
            garment_prompt_embeds=case.input("text_embeds_cloth"),
            image_states=case.input("clip_hidden"),
            negative_image_states=case.input("clip_hidden_uncond") if guidance > 1 else None,
            output_type="latent",
            callback_on_step_end=keep_latents,
        )
    finally:
        handle.remove()
    timesteps = scheduler.timesteps
    outputs["timesteps"] = timesteps.float()
    outputs["alphas_cumprod_at_timesteps"] = scheduler.alphas_cumprod[timesteps]
    return Produced(outputs, {})


def run_train(case: Case) -> Produced:
    """One training step: loss and gradients of TryonNet and the resampler."""
    unet, resampler, garment_net = tryon_parts(case)
    for net in (unet, resampler):
        net.train().requires_grad_(True)
    timesteps, noise = torch.tensor(case.scalar("timesteps")), case.input("noise")
    noisy = build_scheduler(case, DDPMScheduler).add_noise(case.input("image_latents"), noise, timesteps)
    mask = (case.input("mask") >= 0.5).float()
    pooled = case.input("pooled_prompt_embeds")
    loss, predicted = training_loss(
        unet,
        garment_net,
        noisy=noisy,
        noise=noise,
        timesteps=timesteps,
        garment=Shown(latents=case.input("cloth_latents"), context=case.input("text_embeds_cloth")),
        space=torch.cat([mask, case.input("masked_image_latents"), case.input("pose_latents")], dim=1),
        context=with_image_prompt(case.input("prompt_embeds"), resampler(case.input("clip_hidden"))),
        added={"text_embeds": pooled, "time_ids": torch.tensor([case.scalar("time_ids")] * len(pooled))},
    )
    loss.backward()
    trained = [*unet.parameters(), *resampler.parameters()]
    gradients = [parameter.grad.norm() for parameter in trained if parameter.grad is not None]
    outputs = {
        "loss": loss.detach().reshape(1),
        "noise_pred": predicted.detach(),
        "noisy_latents": noisy,
        "grad_norm": torch.stack(gradients).norm().reshape(1),
    }
    for name in case.expected:
        if name.startswith("grad/"):
            outputs[name] = gradient(unet, resampler, name.removeprefix("grad/"))
    return Produced(outputs, {})


def gradient(unet: nn.Module, resampler: nn.Module, key: str) -> Tensor:
    """The gradient of a parameter under its published name."""
    is_prompt = key.startswith("encoder_hid_proj.")
    net, name = (resampler, RESAMPLER.name(key)) if is_prompt else (unet, TRYON_NET.name(key))
    found = net.get_parameter(name).grad
    if found is None:
        raise CaseError(f"{key} gets no gradient; correct the case's outputs")
    return found


def run_mask(case: Case) -> Produced:
    """The clothes-agnostic mask of every variant: counts by row and column, and every eighth pixel."""
    parsing = np.zeros(case.scalar("parse_size_hw"), dtype=np.uint8)
    for label, x0, y0, x1, y1 in case.scalar("rectangles_label_x0_y0_x1_y1"):
        parsing[y0:y1, x0:x1] = label
    outputs: dict[str, Tensor] = {}
    for name, variant in case.scalar("variants").items():
        labels, points = parsing.copy(), np.array(case.scalar("keypoints_xy"), dtype=np.float64)
        if name.endswith("_dress"):
            labels[labels == 4] = 7
            labels[280:400, 130:255] = 7
        if name.endswith("_no_right_wrist"):
            points[4] = 0
        mask = agnostic_mask(labels, points, category=variant["category"], arm_width=ARM_WIDTHS[variant["model_type"]])
        white = torch.from_numpy(np.array(mask) > 127).float()  # (H, W)
        outputs |= {f"{name}/rows": white.sum(1), f"{name}/cols": white.sum(0), f"{name}/sub8": white[::8, ::8]}
    return Produced(outputs, {})


RUNNERS: Mapping[str, Runner] = {
    "resampler": run_resampler,
    "garmentnet": run_garmentnet,
    "tryonnet": run_tryonnet,
    "sample": run_sample,
    "mask": run_mask,
    "train": run_train,
}

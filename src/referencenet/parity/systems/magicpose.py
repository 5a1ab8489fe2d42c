"""MagicPose's golden cases: its networks, one step, whole films, the schedule and the training loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys.ldm import unet_config
from referencenet.methods.magicpose import (
    PUBLISHED,
    PUBLISHED_STAGE1,
    SPEC,
    MagicPoseAppearancePipeline,
    MagicPosePipeline,
)
from referencenet.networks.layout import SD15_UNET
from referencenet.parity import kinds
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import Outputs
from referencenet.parity.record import Runner, observed
from referencenet.parity.system import Network, System
from referencenet.pipelines.balance import BALANCE
from referencenet.pipelines.passes import Pass
from referencenet.pipelines.spec import Shown
from referencenet.sampling.ldm_ddim import LDMScheduler
from referencenet.training.config import RunConfig
from referencenet.training.portraits import given_by_frame
from referencenet.training.predicted import Inputs
from referencenet.training.recipes.magicpose.recipe import MagicPoseRecipe

COMPONENTS = {"unet": "unet", "reference_unet": "appearance", "controlnet": "pose"}
LDM_SETTINGS = ("model_channels", "channel_mult", "num_res_blocks", "attention_resolutions", "num_heads", "context_dim")


def keymap_of(name: str, case: Case) -> KeyMap:
    """The key map of one of our networks: those of the first stage are in a file of its own."""
    stage1 = case.components[COMPONENTS[name]].get("checkpoint_prefix") == "control_model."
    return (PUBLISHED_STAGE1 if stage1 else PUBLISHED).files_of(name)[0].keymap


def ldm(_case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of latent-diffusion code in diffusers' words."""
    return {"unet": SD15_UNET | unet_config(**{name: config[name] for name in LDM_SETTINGS})}


NETWORKS = {ours: Network(theirs, config=ldm, keymap=partial(keymap_of, ours)) for ours, theirs in COMPONENTS.items()}
SYSTEM = System(MagicPosePipeline, NETWORKS)
STAGE1 = System(MagicPoseAppearancePipeline, {name: NETWORKS[name] for name in ("unet", "reference_unet")})
SHOWN = kinds.Shows("reference_latent", "context")


def joined(found: list[Outputs]) -> Outputs:
    """Outputs of samples that were predicted one by one, as conditions and timesteps differ between them."""
    return {name: torch.cat([outputs[name] for outputs in found]) for name in found[0]}


def controlnet(case: Case) -> Outputs:
    """The pose ControlNet's residuals and the embedding of its pictures."""
    inputs = case.input("x"), torch.tensor(case.scalar("timesteps")), case.input("context"), case.input("hint")
    names = {"controlnet_cond_embedding": "hint_embedding"}
    (down, middle), outputs = observed(SYSTEM.network(case, "controlnet"), names, *inputs, return_dict=False)
    return outputs | {f"residual.{i:02}": level for i, level in enumerate([*down, middle])}


def stage1(case: Case) -> Outputs:
    """A prediction with the reference and one without, every sample at its own timestep."""
    pipe, told, found = STAGE1.pipe(case), SHOWN(case), list[Outputs]()
    rows = (each.split(1) for each in (case.input("x"), told.latents, told.context))
    for t, x, clean, context in zip(case.scalar("timesteps"), *rows, strict=True):
        shown, given = Shown(latents=clean, context=context), {"prompt": (context, context)}
        unread, read = kinds.predict(pipe, x, t, shown, given, scale=2.0)["raw"].chunk(2)
        found.append({"eps_uncond": unread, "eps_cond": read})
    return joined(found)


def step(case: Case) -> Outputs:
    """One step in both modes: guided by reference and pose, and balanced; by the pipeline's scheduler."""
    pipe, t, index = SYSTEM.pipe(case), case.scalar("timestep"), case.scalar("ddim_index")
    pipe.scheduler.set_timesteps(case.scalar("ddim_steps"))
    if int(pipe.scheduler.timesteps.flip(0)[index]) != t:
        raise CaseError(f"{case.id}: step {index} is not at timestep {t}")
    names = ("x", "pose", "reference_latent", "context", "context_void", "uncond_context")
    samples = zip(*(case.input(name).split(1) for name in names), strict=True)
    return joined([step_of(case, pipe, t, *inputs) for inputs in samples])


def step_of(case: Case, pipe: Any, t: int, *inputs: Tensor) -> Outputs:
    """The outputs of a sample."""
    x, pose, clean, context, void, negative = inputs
    scale = case.scalar("guidance_scale")

    def predict(told: Tensor, prompts: tuple[Tensor, Tensor], **options: Any) -> Outputs:
        seen = Shown(latents=clean.expand(len(told), -1, -1, -1), context=told)
        given = {"prompt": prompts, "poses": kinds.drawn(pose)}
        found = kinds.predict(pipe, x.unsqueeze(2), t, seen, given, **options)
        return {name: value.squeeze(2) if value.ndim == 5 else value for name, value in found.items()}

    watched = {place_of(name): name for name in case.expected if name.startswith("attn1.")}
    outputs = predict(context, (context, context), raw="eps_cond", watched=watched)
    other = kinds.Passes(Pass(factor=1.0, blind=frozenset({"prompt"})))  # writer and ControlNet have another prompt
    outputs |= predict(void, (void, context), raw="eps_void_context", guidance=other)
    outputs |= predict(context, (context, context), scale=scale)
    outputs["eps_uncond"] = outputs["raw"][:1]
    balanced = predict(torch.cat([negative, context]), (context, negative), scale=scale, guidance=BALANCE)
    outputs["balance.eps_uncond"], outputs["balance.eps_cond"] = balanced["raw"].chunk(2)
    for prefix, guided in (("", outputs["guided"]), ("balance.", balanced["guided"])):
        found = pipe.scheduler.step(guided, t, x, eta=case.scalar("eta"))
        outputs |= {f"{prefix}x_prev": found.prev_sample, f"{prefix}pred_x0": found.pred_original_sample}
    return outputs


def place_of(name: str) -> str:
    """The self-attention of a published block, as in attn1.input_blocks.1.1."""
    keymap = PUBLISHED.files_of("unet")[0].keymap
    return keymap.name(f"{name.removeprefix('attn1.')}.transformer_blocks.0.attn1.")[:-1]


class Watched(LDMScheduler):
    """Keeps what the last step says about the clean latents."""

    clean: Tensor

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """As ever."""
        result: Any = super().step(*args, **kwargs)
        self.clean = result[1]
        return result


def sample(case: Case) -> Outputs:
    """All poses through the pipeline's call."""
    pipe, context, count = SYSTEM.pipe(case), case.input("context"), case.scalar("poses")
    pipe.register_modules(scheduler=Watched.from_config(pipe.scheduler.config))
    poses, noise = torch.cat([case.input(f"pose.{i}") for i in range(count)]), case.input("noise").unsqueeze(2)
    call = partial(pipe, SHOWN(case), poses, prompt_embeds=context)
    kept = kinds.sample(case, pipe, call, "{}", steps="ddim_steps", latents=noise)
    unconditional, conditional = kept["raw"].chunk(2)
    outputs = {f"latent.{i}": kept["latents_final"][:, :, i] for i in range(count)}
    outputs |= {"first_step.eps_uncond": unconditional[:1], "first_step.eps_cond": conditional[:1]}
    return outputs | {"first_step.x_prev": kept["0"][:, :, 0], "last_step.pred_x0": pipe.scheduler.clean[:, :, 0]}


def schedule(case: Case) -> Outputs:
    """Timesteps, and noise levels at them."""
    scheduler = SPEC.scheduler()
    outputs: Outputs = {"alphas_cumprod": scheduler.alphas_cumprod}
    for steps in case.scalar("requested_steps"):
        scheduler.set_timesteps(steps)
        times = scheduler.timesteps
        alphas, before = scheduler.alphas_cumprod[times], times[1:]
        previous = torch.cat([scheduler.alphas_cumprod[before], scheduler.final_alpha_cumprod.reshape(1)])
        outputs |= {
            f"timesteps.{steps}": times,
            f"alphas.{steps}": alphas,
            f"alphas_prev.{steps}": previous,
            f"sigmas_eta1.{steps}": ((1 - previous) / (1 - alphas) * (1 - alphas / previous)).sqrt(),
        }
    return outputs


@torch.enable_grad()
def train(case: Case) -> Outputs:
    """The second stage's loss and gradients, with a clean reference and a noised one."""
    recipe, told, films = MagicPoseRecipe(SYSTEM.pipe(case), "pose", RunConfig(steps=1)), SHOWN(case), []
    for context, picture in zip(told.context.split(1), case.input("pose").split(1), strict=True):
        films.append({"prompt": (context, context), "poses": given_by_frame(picture)})
    latents, noise = (case.input(name).unsqueeze(2) for name in ("target_latent", "noise"))
    inputs = Inputs(
        latents=latents,
        noise=noise,
        timesteps=torch.tensor(case.scalar("timesteps")),
        shown=told,
        given={name: [film[name] for film in films] for name in films[0]},
        passes=(Pass(factor=1.0),) * len(films),
    )
    noised = recipe.loss.noisy(told.latents, case.input("noise"), inputs.timesteps)
    with torch.no_grad(), recipe.losses(replace(inputs, shown=replace(told, latents=noised))) as losses:
        other = losses["loss"]
    with recipe.losses(inputs) as losses:
        losses["loss"].backward()
    outputs = {"losses": torch.stack([losses["loss"], other])}
    for ours in ("reference_unet", "controlnet"):
        outputs |= gradients(case, ours, getattr(recipe.pipe, ours))
    return outputs


def gradients(case: Case, ours: str, network: nn.Module) -> Outputs:
    """Gradients by published names; exactly those parameters must have none which have none in the published code."""
    keymap, component = keymap_of(ours, case), COMPONENTS[ours]
    published = case.scalar("parameters_without_gradient")[component]
    expected = {keymap.name(key) for key in published if keymap.reason_ignored(key) is None}
    without = {name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())}
    if without != expected:
        raise CaseError(f"{case.id}: {component} has no gradient in {sorted(without ^ expected)[:10]}")
    prefix = f"grad.{component}."
    keys = [name.removeprefix(prefix) for name in case.expected if name.startswith(prefix)]
    found = {f"{prefix}{key}": network.get_parameter(keymap.name(key)).grad for key in keys}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


RUNNERS: Mapping[str, Runner] = {
    "appearance-write": kinds.writes(SYSTEM, SHOWN, "bank.{index:02}"),
    "pose-controlnet": kinds.runner(controlnet),
    "stage1": kinds.runner(stage1),
    "step": kinds.runner(step),
    "sample": kinds.runner(sample),
    "schedule": kinds.runner(schedule),
    "train": kinds.runner(train),
    "motion-module": kinds.motion("x", "out", {}),
}

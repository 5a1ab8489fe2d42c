"""Runs the golden cases of MagicPose: its networks, one step, whole films, the schedule and the training loss.

Networks are built and filled by the rows that published files are read with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys.ldm import unet_config
from referencenet.checkpoints.magicpose import PUBLISHED, PUBLISHED_STAGE1
from referencenet.links.attach import attach, write
from referencenet.links.sites import attention_sites
from referencenet.methods.magicpose import SPEC, MagicPosePipeline
from referencenet.networks.layout import SD15_UNET
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.record import Produced, Runner, assemble, build_motion_module, component_config, each_output
from referencenet.pipelines.balance import BALANCE
from referencenet.pipelines.passes import reading_plan
from referencenet.pipelines.spec import Shown
from referencenet.sampling.ldm_ddim import LDMScheduler

COMPONENTS = {"unet": "unet", "appearance": "reference_unet", "pose": "controlnet"}
LDM_SETTINGS = ("model_channels", "channel_mult", "num_res_blocks", "attention_resolutions", "num_heads", "context_dim")


@torch.no_grad()
def run_write(case: Case) -> Produced:
    """What the reference UNet writes, by execution order."""
    unet = build(case, "appearance")
    bank = write(
        unet,
        case.input("reference_latent"),
        timestep=case.scalar("timestep"),
        encoder_hidden_states=case.input("context"),
    )
    sites = sorted(attention_sites(unet), key=lambda site: site.order)
    return Produced({f"bank.{i:02}": bank.hidden[site.name] for i, site in enumerate(sites)}, {})


@torch.no_grad()
def run_controlnet(case: Case) -> Produced:
    """The pose ControlNet's residuals and the embedding of its pictures."""
    network, kept = build(case, "pose"), {}
    with each_output(network, {"controlnet_cond_embedding": "hint_embedding"}, kept):
        residuals = residuals_of(
            network, case.input("x"), torch.tensor(case.scalar("timesteps")), case.input("context"), case.input("hint")
        )
    return Produced({**kept, **{f"residual.{i:02}": level for i, level in enumerate(residuals)}}, {})


@torch.no_grad()
def run_stage1(case: Case) -> Produced:
    """A prediction with the reference and one without, every sample at its own timestep."""
    unet, reference_unet = build(case, "unet"), build(case, "appearance")
    x, context, timesteps = case.input("x"), case.input("context"), torch.tensor(case.scalar("timesteps"))
    bank = write(reference_unet, case.input("reference_latent"), timestep=timesteps, encoder_hidden_states=context)
    with attach(unet, [SPEC.link]) as link, link.reading(bank):
        conditional = unet(x, timesteps, context).sample
    return Produced({"eps_cond": conditional, "eps_uncond": unet(x, timesteps, context).sample}, {})


@torch.no_grad()
def run_step(case: Case) -> Produced:
    """One step in both modes, by the pipeline's networks, guidance and scheduler."""
    pipe = pipeline(case)
    x, pose, clean, t = case.input("x"), case.input("pose"), case.input("reference_latent"), case.scalar("timestep")
    context, void, negative = (case.input(name) for name in ("context", "context_void", "uncond_context"))
    names = {place_of(name): name for name in case.expected if name.startswith("attn1.")}
    outputs: dict[str, Tensor] = {}
    for told, name in ((context, "eps_cond"), (void, "eps_void_context")):
        bank = pipe.bank_of(Shown(latents=clean, context=told), t)
        down_and_middle = added(residuals_of(pipe.controlnet, x, t, told, pose))
        with attach(pipe.unet, [SPEC.link]) as link, link.reading(bank):
            with each_output(pipe.unet, names if told is context else {}, outputs):
                outputs[name] = pipe.unet(x, t, context, **down_and_middle).sample
    outputs["eps_uncond"] = pipe.unet(x, t, context).sample
    bank = pipe.bank_of(Shown(latents=torch.cat([clean, clean]), context=torch.cat([negative, context])), t)
    passes = BALANCE.passes(t, case.scalar("guidance_scale"))
    both = torch.cat([negative, context])
    twice = residuals_of(pipe.controlnet, torch.cat([x, x]), t, both, torch.cat([pose, pose]))
    with (
        attach(pipe.unet, [SPEC.link]) as link,
        link.reading(bank, plan=reading_plan(passes, len(x), bank.rows, has_blank=True)),
    ):
        halves = pipe.unet(torch.cat([x, x]), t, both, **added(twice)).sample.chunk(2)
    outputs["balance.eps_uncond"], outputs["balance.eps_cond"] = halves
    pipe.scheduler.set_timesteps(case.scalar("ddim_steps"))
    if int(pipe.scheduler.timesteps.flip(0)[case.scalar("ddim_index")]) != t:
        raise CaseError(f"{case.id}: step {case.scalar('ddim_index')} is not at timestep {t}")
    for prefix, parts in (("", (outputs["eps_uncond"], outputs["eps_cond"])), ("balance.", halves)):
        guided = SPEC.guidance.combine(passes, parts)
        step = pipe.scheduler.step(guided, t, x, eta=case.scalar("eta"))
        outputs |= {f"{prefix}x_prev": step.prev_sample, f"{prefix}pred_x0": step.pred_original_sample}
    return Produced(outputs, {})


@torch.no_grad()
def run_sample(case: Case) -> Produced:
    """All poses through the pipeline's call."""
    pipe, noise, context = pipeline(case), case.input("noise"), case.input("context")
    count, outputs = case.scalar("poses"), dict[str, Tensor]()
    seen: list[Tensor] = []
    clean: list[Tensor] = []

    def keep(_pipe: Any, step: int, _t: Any, tensors: dict[str, Tensor]) -> None:
        if step == 0:
            outputs["first_step.x_prev"] = tensors["latents"][:, :, 0]

    class Watched(LDMScheduler):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            result: Any = super().step(*args, **kwargs)
            clean.append(result[1])
            return result

    pipe.register_modules(scheduler=Watched.from_config(pipe.scheduler.config))
    hook = pipe.unet.register_forward_hook(lambda _module, _args, output: seen.append(output[0]))
    try:
        latents = pipe(
            reference=Shown(latents=case.input("reference_latent"), context=context),
            poses=torch.cat([case.input(f"pose.{i}") for i in range(count)]),
            prompt_embeds=context,
            width=noise.shape[-1] * 8,
            height=noise.shape[-2] * 8,
            num_inference_steps=case.scalar("ddim_steps"),
            guidance_scale=case.scalar("guidance_scale"),
            eta=case.scalar("eta"),
            latents=noise.unsqueeze(2),
            output_type="latent",
            callback_on_step_end=keep,
        ).frames
    finally:
        hook.remove()
    unconditional, conditional = seen[0].chunk(2)
    outputs |= {"first_step.eps_uncond": unconditional[:1], "first_step.eps_cond": conditional[:1]}
    outputs["last_step.pred_x0"] = clean[-1][:, :, 0]
    return Produced(outputs | {f"latent.{i}": latents[:, :, i] for i in range(count)}, {})


def run_schedule(case: Case) -> Produced:
    """Timesteps, and noise levels at them."""
    scheduler = SPEC.scheduler()
    outputs: dict[str, Tensor] = {"alphas_cumprod": scheduler.alphas_cumprod}
    for steps in case.scalar("requested_steps"):
        scheduler.set_timesteps(steps)
        times = scheduler.timesteps
        alphas, before = scheduler.alphas_cumprod[times], times[1:]
        previous = torch.cat([scheduler.alphas_cumprod[before], scheduler.final_alpha_cumprod.reshape(1)])
        outputs |= {
            f"timesteps.{steps}": times.float(),
            f"alphas.{steps}": alphas,
            f"alphas_prev.{steps}": previous,
            f"sigmas_eta1.{steps}": ((1 - previous) / (1 - alphas) * (1 - alphas / previous)).sqrt(),
        }
    return Produced(outputs, {})


def run_train(case: Case) -> Produced:
    """The second stage's loss and gradients, with a clean reference and a noised one."""
    pipe = pipeline(case)
    pipe.unet.requires_grad_(False)
    trained = {"appearance": pipe.reference_unet, "pose": pipe.controlnet}
    timesteps, noise = torch.tensor(case.scalar("timesteps")), case.input("noise")
    clean, context = case.input("reference_latent"), case.input("context")
    noisy = pipe.scheduler.add_noise(case.input("target_latent"), noise, timesteps)
    losses: list[Tensor] = []
    for reference in (clean, pipe.scheduler.add_noise(clean, noise, timesteps)):
        bank = write(pipe.reference_unet, reference, timestep=timesteps, encoder_hidden_states=context)
        residuals = residuals_of(pipe.controlnet, noisy, timesteps, context, case.input("pose"))
        with attach(pipe.unet, [SPEC.link]) as link, link.reading(bank):
            predicted = pipe.unet(noisy, timesteps, context, **added(residuals)).sample
        losses.append(F.mse_loss(predicted, noise))
    losses[0].backward()
    outputs: dict[str, Tensor] = {"losses": torch.stack(losses).detach()}
    for name in case.expected:
        if name.startswith("grad."):
            component, key = name.removeprefix("grad.").split(".", 1)
            gradient = trained[component].get_parameter(keymap_of(case, component).name(key)).grad
            if gradient is not None:
                outputs[name] = gradient
    check_without_gradient(case, trained)
    return Produced(outputs, {})


@torch.no_grad()
def run_motion(case: Case) -> Produced:
    """One motion module, frames folded into rows."""
    config = component_config(case, "motion_module")
    module = build_motion_module(
        case, heads=config["num_attention_heads"], positions=config["temporal_position_encoding_max_len"]
    )
    return Produced({"out": module(case.input("x"), num_frames=case.scalar("frames"))}, {})


def check_without_gradient(case: Case, trained: Mapping[str, nn.Module]) -> None:
    """Make sure that exactly those parameters get no gradient which get none in the published code."""
    for component, network in trained.items():
        keymap = keymap_of(case, component)
        published = case.scalar("parameters_without_gradient")[component]
        expected = {keymap.name(key) for key in published if keymap.reason_ignored(key) is None}
        without = {name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())}
        if without != expected:
            raise CaseError(f"{case.id}: {component} has no gradient in {sorted(without ^ expected)[:10]}")


def pipeline(case: Case) -> MagicPosePipeline:
    """The pipeline with the case's networks."""
    parts = {ours: build(case, theirs) for theirs, ours in COMPONENTS.items()}
    pipe = assemble(MagicPosePipeline, **parts, scheduler=SPEC.scheduler())
    pipe.vae_scale_factor = 8
    return pipe


def keymap_of(case: Case, component: str) -> KeyMap:
    """The key map of a component's published file."""
    stage1 = case.components[component].get("checkpoint_prefix") == "control_model."
    published = PUBLISHED_STAGE1 if stage1 else PUBLISHED
    return published.files_of(COMPONENTS[component])[0].keymap


def build(case: Case, component: str) -> Any:
    """A network with its weights."""
    config = component_config(case, component)
    unet = SD15_UNET | unet_config(**{name: config[name] for name in LDM_SETTINGS})
    network = PUBLISHED.build[COMPONENTS[component]]({"unet": unet}).eval()
    case.load(network, component, keymap_of(case, component))
    return network


def residuals_of(network: Any, x: Tensor, timestep: Any, context: Tensor, pose: Tensor) -> list[Tensor]:
    """A ControlNet's residuals, the middle's last."""
    down, middle = network(x, timestep, encoder_hidden_states=context, controlnet_cond=pose, return_dict=False)
    return [*down, middle]


def added(residuals: list[Tensor]) -> dict[str, Any]:
    """The same as the denoiser's arguments."""
    down, middle = tuple(residuals[:-1]), residuals[-1]
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def place_of(name: str) -> str:
    """The self-attention of a published block, as in attn1.input_blocks.1.1."""
    keymap = PUBLISHED.files_of("unet")[0].keymap
    return keymap.name(f"{name.removeprefix('attn1.')}.transformer_blocks.0.attn1.")[:-1]


RUNNERS: Mapping[str, Runner] = {
    "appearance-write": run_write,
    "pose-controlnet": run_controlnet,
    "stage1": run_stage1,
    "step": run_step,
    "sample": run_sample,
    "schedule": run_schedule,
    "train": run_train,
    "motion-module": run_motion,
}

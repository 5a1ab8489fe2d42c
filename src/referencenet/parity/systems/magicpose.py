"""MagicPose's golden cases: its networks, one step, whole films, the schedule and the training loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys.ldm import unet_config
from referencenet.links.attach import attach
from referencenet.methods.magicpose import (
    BALANCE,
    PUBLISHED,
    PUBLISHED_STAGE1,
    SPEC,
    MagicPoseAppearancePipeline,
    MagicPosePipeline,
)
from referencenet.networks.layout import SD15_UNET
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import Passes, controlled, drawn, motion, predict, sample, values, writes
from referencenet.parity.record import Produced, Runner, each_output
from referencenet.parity.system import Network, System
from referencenet.pipelines.passes import Pass
from referencenet.pipelines.spec import Shown
from referencenet.sampling.ldm_ddim import LDMScheduler

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
SYSTEM = System(pipeline=MagicPosePipeline, published=PUBLISHED, networks=NETWORKS)
STAGE1 = System(
    pipeline=MagicPoseAppearancePipeline,
    published=PUBLISHED_STAGE1,
    networks={name: NETWORKS[name] for name in ("unet", "reference_unet")},
)


def shown(case: Case) -> Shown:
    """What the reference UNet is shown."""
    return Shown(latents=case.input("reference_latent"), context=case.input("context"))


def each_sample(case: Case, predicted: Callable[[int], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Outputs of all samples, each predicted by itself: conditions and timesteps differ between them."""
    found = [predicted(i) for i in range(case.inputs["x"].shape[0])]
    return {name: torch.cat([outputs[name] for outputs in found]) for name in found[0]}


@torch.no_grad()
def run_controlnet(case: Case) -> Produced:
    """The pose ControlNet's residuals and the embedding of its pictures."""
    network, outputs = SYSTEM.network(case, "controlnet"), dict[str, Tensor]()
    inputs = case.input("x"), torch.tensor(case.scalar("timesteps")), case.input("context"), case.input("hint")
    with each_output(network, {"controlnet_cond_embedding": "hint_embedding"}, outputs):
        residuals = controlled(network, "{:02}", "middle", *inputs)
    return Produced(outputs | {f"residual.{i:02}": level for i, level in enumerate(residuals.values())}, {})


def run_stage1(case: Case) -> Produced:
    """A prediction with the reference and one without, every sample at its own timestep."""
    pipe, x, told = STAGE1.pipe(case), case.input("x"), shown(case)

    def predicted(i: int) -> dict[str, Tensor]:
        context = told.context[i : i + 1]
        own, given = Shown(latents=told.latents[i : i + 1], context=context), {"prompt": (context, context)}
        outputs = predict(pipe, x[i : i + 1], case.scalar("timesteps")[i], own, given, scale=2.0)
        return dict(zip(("eps_uncond", "eps_cond"), outputs["raw"].chunk(2), strict=True))

    return Produced(each_sample(case, predicted), {})


def run_step(case: Case) -> Produced:
    """One step in both modes: alone by the reference and pose, and balanced; by the pipeline's scheduler."""
    pipe, t = SYSTEM.pipe(case), case.scalar("timestep")
    pipe.scheduler.set_timesteps(case.scalar("ddim_steps"))
    if int(pipe.scheduler.timesteps.flip(0)[case.scalar("ddim_index")]) != t:
        raise CaseError(f"{case.id}: step {case.scalar('ddim_index')} is not at timestep {t}")
    return Produced(each_sample(case, partial(step_of, case, pipe, t)), {})


def step_of(case: Case, pipe: Any, t: int, i: int) -> dict[str, Tensor]:
    """The outputs of a sample."""
    names = ("x", "pose", "reference_latent", "context", "context_void", "uncond_context")
    x, pose, clean, context, void, negative = (case.input(name)[i : i + 1] for name in names)
    scale = case.scalar("guidance_scale")

    def predicted(told: Tensor, prompts: tuple[Tensor, Tensor], **options: Any) -> dict[str, Tensor]:
        seen = Shown(latents=clean.expand(len(told), -1, -1, -1), context=told)
        found = predict(pipe, x.unsqueeze(2), t, seen, {"prompt": prompts, "poses": drawn(pose)}, **options)
        return {name: value.squeeze(2) if value.ndim == 5 else value for name, value in found.items()}

    watched = {place_of(name): name for name in case.expected if name.startswith("attn1.")}
    outputs = predicted(context, (context, context), raw="eps_cond", guided="alone", watched=watched)
    other = Passes(Pass(factor=1.0, blind=frozenset({"prompt"})))  # writer and ControlNet are told another prompt
    outputs |= predicted(void, (void, context), raw="eps_void_context", guided="void", guidance=other)
    outputs |= predicted(context, (context, context), scale=scale)
    outputs["eps_uncond"] = outputs["raw"][:1]
    balanced = predicted(torch.cat([negative, context]), (context, negative), scale=scale, guidance=BALANCE)
    outputs["balance.eps_uncond"], outputs["balance.eps_cond"] = balanced["raw"].chunk(2)
    for prefix, guided in (("", outputs["guided"]), ("balance.", balanced["guided"])):
        step = pipe.scheduler.step(guided, t, x, eta=case.scalar("eta"))
        outputs |= {f"{prefix}x_prev": step.prev_sample, f"{prefix}pred_x0": step.pred_original_sample}
    return outputs


class Watched(LDMScheduler):
    """Keeps what the last step says about the clean latents."""

    clean: Tensor

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """As ever."""
        result: Any = super().step(*args, **kwargs)
        self.clean = result[1]
        return result


def run_sample(case: Case) -> Produced:
    """All poses through the pipeline's call."""
    pipe, context, count = SYSTEM.pipe(case), case.input("context"), case.scalar("poses")
    pipe.register_modules(scheduler=Watched.from_config(pipe.scheduler.config))
    poses = torch.cat([case.input(f"pose.{i}") for i in range(count)])
    call = partial(pipe, shown(case), poses, prompt_embeds=context, eta=case.scalar("eta"))
    kept = sample(case, pipe, call, "{}", steps="ddim_steps", latents=case.input("noise").unsqueeze(2))
    unconditional, conditional = kept["raw"].chunk(2)
    first = {"eps_uncond": unconditional[:1], "eps_cond": conditional[:1], "x_prev": kept["0"][:, :, 0]}
    outputs = {f"first_step.{name}": value for name, value in first.items()}
    outputs["last_step.pred_x0"] = pipe.scheduler.clean[:, :, 0]
    return Produced(outputs | {f"latent.{i}": kept["latents_final"][:, :, i] for i in range(count)}, {})


def schedule(case: Case) -> dict[str, Tensor]:
    """Timesteps, and noise levels at them."""
    scheduler = SPEC.scheduler()
    outputs: dict[str, Tensor] = {"alphas_cumprod": scheduler.alphas_cumprod}
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


def run_train(case: Case) -> Produced:
    """The second stage's loss and gradients, with a clean reference and a noised one."""
    pipe, told = SYSTEM.pipe(case), shown(case)
    pipe.unet.requires_grad_(False)
    timesteps, noise = torch.tensor(case.scalar("timesteps")), case.input("noise")
    noisy = pipe.scheduler.add_noise(case.input("target_latent"), noise, timesteps)
    losses: list[Tensor] = []
    for clean in (told.latents, pipe.scheduler.add_noise(told.latents, noise, timesteps)):
        bank = SPEC.write.bank(pipe.reference_unet, Shown(latents=clean, context=told.context), timesteps, SPEC.link)
        down, middle = pipe.controlnet(noisy, timesteps, told.context, case.input("pose"), return_dict=False)
        added = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        with attach(pipe.unet, [SPEC.link]) as link, link.reading(bank):
            predicted = pipe.unet(noisy, timesteps, told.context, **added).sample
        losses.append(F.mse_loss(predicted, noise))
    losses[0].backward()
    outputs: dict[str, Tensor] = {"losses": torch.stack(losses).detach()}
    for ours in ("reference_unet", "controlnet"):
        network, theirs, name_of = getattr(pipe, ours), COMPONENTS[ours], keymap_of(ours, case).name
        check_without_gradient(case, ours, network)
        for name in case.expected:
            if name.startswith(f"grad.{theirs}."):
                outputs[name] = network.get_parameter(name_of(name.removeprefix(f"grad.{theirs}."))).grad
    return Produced({name: value for name, value in outputs.items() if value is not None}, {})


def check_without_gradient(case: Case, ours: str, network: nn.Module) -> None:
    """Make sure that exactly those parameters get no gradient which get none in the published code."""
    keymap, component = keymap_of(ours, case), COMPONENTS[ours]
    published = case.scalar("parameters_without_gradient")[component]
    expected = {keymap.name(key) for key in published if keymap.reason_ignored(key) is None}
    without = {name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())}
    if without != expected:
        raise CaseError(f"{case.id}: {component} has no gradient in {sorted(without ^ expected)[:10]}")


def place_of(name: str) -> str:
    """The self-attention of a published block, as in attn1.input_blocks.1.1."""
    keymap = PUBLISHED.files_of("unet")[0].keymap
    return keymap.name(f"{name.removeprefix('attn1.')}.transformer_blocks.0.attn1.")[:-1]


RUNNERS: Mapping[str, Runner] = {
    "appearance-write": writes(SYSTEM, shown, "bank.{index:02}"),
    "pose-controlnet": run_controlnet,
    "stage1": run_stage1,
    "step": run_step,
    "sample": run_sample,
    "schedule": values(schedule),
    "train": run_train,
    "motion-module": motion("x", "out", {}),
}

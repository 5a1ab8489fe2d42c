"""Runs the golden cases of DiffPortrait3D: its networks, one step in both modes, sampling and the training loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from referencenet.checkpoints.joint import BUILD, appearance_keys
from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.keys.ldm import controlnet_keys, unet_config
from referencenet.checkpoints.keys.views import view_unet_keys
from referencenet.links.attach import write
from referencenet.links.sites import attention_sites
from referencenet.methods.diffportrait3d import SPEC, DiffPortrait3DPipeline
from referencenet.networks.layout import SD15_UNET, film_config
from referencenet.networks.views import ViewUNet
from referencenet.parity.cases import Case
from referencenet.parity.record import Produced, Runner, each_output
from referencenet.parity.system import assembled, config_of, motion_module
from referencenet.pipelines.balance import balance_of
from referencenet.pipelines.passes import Pass, TwoWay
from referencenet.pipelines.prediction import Call, predicting
from referencenet.pipelines.spec import Canvas, Shown
from referencenet.sampling.ldm_ddim import LDMScheduler
from referencenet.training.config import RunConfig
from referencenet.training.predicted import Inputs
from referencenet.training.recipes.diffportrait3d.recipe import DiffPortrait3DRecipe

COMPONENTS = {"unet": "unet", "reference": "reference_unet", "controlnet": "controlnet"}
KEYS = {"unet": view_unet_keys, "reference": appearance_keys, "controlnet": controlnet_keys}
ENDS = [0, 7]  # views that most outputs hold


@torch.no_grad()
def run_motion(case: Case) -> Produced:
    """One view module, views folded into rows."""
    module = motion_module(case, heads=config_of(case, "motion_module")["heads"], positions=32)
    x, kept = case.input("hidden_states"), dict[str, Tensor]()
    with each_output(module, {"norm": "after_norm", "transformer_blocks.0.attn1": "attn0"}, kept):
        out = module(x, num_frames=case.scalar("views"))
    rows = kept["attn0"].unflatten(0, (2, x.shape[-1] * x.shape[-2])).transpose(1, 2).flatten(0, 1)
    first = kept["after_norm"].transpose(1, 2).flatten(0, 1)[:2]
    return Produced({"out": out, "after_norm": first, "attn0": rows[[0, -1]]}, {})


@torch.no_grad()
def run_controlnet(case: Case) -> Produced:
    """The ControlNet's residuals, and the embeddings of its pictures and its timestep."""
    network, kept = build(case, "controlnet"), dict[str, Tensor]()
    names = {"controlnet_cond_embedding": "hint_features", "time_embedding": "time_embedding"}
    with each_output(network, names, kept):
        levels = residuals_of(network, case, case.input("latents"), case.scalar("timestep"), case.input("camera_image"))
    return Produced({**kept, **{f"residual_{i:02}": level for i, level in enumerate(levels)}}, {})


@torch.no_grad()
def run_write(case: Case) -> Produced:
    """What the reference UNet writes, by execution order."""
    return Produced(banked(build(case, "reference"), case), {})


@torch.no_grad()
def run_step(case: Case) -> Produced:
    """A step in the released mode; what modules give in both passes, one behind the other."""
    pipe, kept = pipeline(case), dict[str, Tensor]()
    names = {
        "down_blocks.0.motion_modules.0": "mm_in0",
        "up_blocks.0.upsamplers.0": "mm_out2",
        "mid_block.motion_modules.0": "mm_mid",
        "mid_block": "mid",
    }
    with each_output(pipe.unet, names, kept, joins=True):
        (blind, seen), guided = predicted(pipe, case, SPEC.guidance)
    outputs = {"eps_cond": seen, "eps_uncond": blind, "eps_guided": guided[ENDS]}
    for name, both in kept.items():
        views = [0] if name == "mm_in0" else ENDS
        outputs |= {f"{name}_{half}": part[views] for half, part in zip(("uncond", "cond"), both.chunk(2), strict=True)}
    return Produced(outputs | banked(pipe.reference_unet, case), {})


@torch.no_grad()
def run_balance(case: Case) -> Produced:
    """A step guided by the prompts alone."""
    pipe = pipeline(case)
    (blind, seen), guided = predicted(pipe, case, balance_of("cameras"), case.input("uncond_context"))
    pipe.scheduler.set_timesteps(case.scalar("num_steps"))
    step = pipe.scheduler.step(
        guided, case.scalar("timestep"), case.input("latents"), eta=case.scalar("eta"),
        variance_noise=case.input("step_noise"),
    )  # fmt: skip
    ends = {"x_prev": step.prev_sample[ENDS], "pred_x0": step.pred_original_sample[ENDS]}
    return Produced({"eps_uncond": blind, "eps_cond": seen, **ends}, {})


@torch.no_grad()
def run_sample(case: Case) -> Produced:
    """All views through the pipeline's call."""
    pipe, clean = pipeline(case), list[Tensor]()
    outputs: dict[str, Tensor] = {}

    class GivenNoise(LDMScheduler):
        def step(self, *args: Any, eta: float = 0.0, **kwargs: Any) -> Any:
            sample: Tensor = args[2]
            noise = case.input(f"step_noise_{len(clean)}").transpose(0, 1)[None]
            outputs.setdefault("x_T", sample[0].transpose(0, 1)[ENDS])
            result: Any = super().step(*args, eta=eta, **kwargs | {"variance_noise": noise})
            outputs[f"x_after_{len(clean)}"] = result[0][0].transpose(0, 1)[ENDS]
            clean.append(result[1])
            return result

    pipe.register_modules(scheduler=GivenNoise.from_config(pipe.scheduler.config))
    noise, context = case.input("init_noise"), case.input("context")
    latents = pipe(
        reference=Shown(latents=case.input("reference_latent"), context=context),
        cameras=(case.input("camera_images") + 1) / 2,
        proxies=case.input("aware_latents"),
        prompt_embeds=context,
        width=noise.shape[-1] * 8,
        height=noise.shape[-2] * 8,
        num_inference_steps=case.scalar("num_steps"),
        guidance_scale=case.scalar("guidance_scale"),
        eta=case.scalar("eta"),
        latents=noise.transpose(0, 1)[None],
        output_type="latent",
    ).frames
    outputs |= {"latents": latents[0].transpose(0, 1), "pred_x0_last": clean[-1][0].transpose(0, 1)[ENDS]}
    return Produced(outputs, {})


def run_train(case: Case) -> Produced:
    """The loss, every view at its own timestep, and gradients of all three networks."""
    learn = tuple(rf"{ours}\..*" for ours in COMPONENTS.values())
    recipe = DiffPortrait3DRecipe(pipeline(case), "views", RunConfig(steps=1, train=learn))
    networks: Any = {theirs: getattr(recipe.pipe, ours) for theirs, ours in COMPONENTS.items()}
    timesteps, noise = torch.tensor(case.scalar("timesteps")), case.input("noise")
    heads = (case.input("camera_images") + 1) / 2
    inputs = Inputs(
        latents=case.input("target_latents").transpose(0, 1)[None],  # (1, 4, v, h, w)
        noise=noise.transpose(0, 1)[None],
        timesteps=timesteps,
        passes=(Pass(factor=1.0),),
        **recipe.seen(case.input("reference_latent"), case.input("context"), [heads]),
    )
    seen: dict[str, Tensor] = {}
    with each_output(recipe.pipe.unet, {"": "prediction"}, seen), recipe.losses(inputs) as losses:
        loss = losses["loss"]
        loss.backward()
    noisy = recipe.loss.noisy(inputs.latents, inputs.noise, timesteps)[0].transpose(0, 1)
    prediction = seen["prediction"][0].transpose(0, 1)
    outputs = {
        "noisy_latents": noisy[:2],
        "losses": torch.stack([loss, bound(prediction, noise, timesteps)]).detach(),
    }
    for name in case.expected:
        if name.startswith("grad."):
            component, key = name.removeprefix("grad.").split(".", 1)
            outputs[name] = networks[component].get_parameter(keymap_of(case, component).name(key)).grad
    return Produced(outputs, {})


def bound(prediction: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """The variational bound that latent-diffusion code logs: the loss of each row by its weight, () of (rows, ...)."""
    scheduler = SPEC.scheduler()
    alphas, betas = scheduler.alphas_cumprod.double(), scheduler.betas.double()
    before = torch.cat([torch.ones(1, dtype=torch.float64), alphas[:-1]])
    variance = betas * (1 - before) / (1 - alphas)
    weights = betas**2 / (2 * variance * (1 - betas) * (1 - alphas))
    weights[0] = weights[1]
    return (weights[timesteps].float() * (prediction - noise).square().flatten(1).mean(1)).mean()


def predicted(
    pipe: DiffPortrait3DPipeline, case: Case, guidance: TwoWay, negative: Tensor | None = None
) -> tuple[list[Tensor], Tensor]:
    """A step of the pipeline: what each pass predicts, and the guided sum, (views, 4, h, w) each."""
    context, x = case.input("context"), case.input("latents").transpose(0, 1)[None]
    states = context if negative is None else torch.cat([negative, context])
    shown = Shown(latents=case.input("reference_latent").expand(len(states), -1, -1, -1), context=states)
    pictures = (case.input("camera_images") + 1) / 2
    call = Call(
        canvas=Canvas(width=x.shape[-1] * 8, height=x.shape[-2] * 8, frames=x.shape[2]),
        given={
            "prompt": (context, context if negative is None else negative),
            "cameras": lambda start, stop: [pictures[start:stop]],
            "middle": False,
        },
        guidance=guidance,
        shown=shown,
    )
    pipe._guidance_scale = case.scalar("guidance_scale")  # pyright: ignore[reportPrivateUsage] - as callbacks do
    halves: list[Tensor] = []
    hook = pipe.unet.register_forward_hook(lambda _module, _args, output: halves.extend(output[0].transpose(1, 2)))
    with predicting(pipe, call) as prediction:
        prediction.admit(0, x.shape[2])
        guided = prediction.begin(x, case.scalar("timestep"))(range(x.shape[2]))
    hook.remove()
    return halves, guided[0].transpose(0, 1)


def banked(unet: Any, case: Case) -> dict[str, Tensor]:
    """A written bank by execution order."""
    bank = write(
        unet,
        case.input("reference_latent"),
        timestep=case.scalar("timestep"),
        encoder_hidden_states=case.input("context"),
    )
    sites = sorted(attention_sites(unet), key=lambda site: site.order)
    return {f"bank_{i:02}": bank.hidden[site.name] for i, site in enumerate(sites)}


def pipeline(case: Case) -> DiffPortrait3DPipeline:
    """The pipeline with the case's networks."""
    parts = {ours: build(case, theirs) for theirs, ours in COMPONENTS.items()}
    pipe = assembled(DiffPortrait3DPipeline, **parts, scheduler=SPEC.scheduler())
    pipe.vae_scale_factor = 8
    return pipe


def keymap_of(case: Case, component: str) -> KeyMap:
    """The key map of a component of the case's size, without a prefix."""
    config = config_of(case, component)
    return KEYS[component]("", levels=len(config["channel_mult"]), blocks=config["num_res_blocks"])


def build(case: Case, component: str) -> Any:
    """A network with its weights."""
    config = config_of(case, component)
    levels, heads = len(config["channel_mult"]), config["num_heads"]
    settings = unet_config(
        **{name: config[name] for name in ("model_channels", "channel_mult", "num_res_blocks", "num_heads")},
        context_dim=config["context_dim"],
        attention_resolutions=[2**level for level in range(levels - 1)],
    )
    unet = SD15_UNET | settings
    if component == "unet":
        network: Any = ViewUNet(**film_config(unet, motion_heads=heads))
    else:
        network = BUILD[COMPONENTS[component]]({"unet": unet})
    case.load(network.eval(), component, keymap_of(case, component))
    return network


def residuals_of(network: Any, case: Case, x: Tensor, timestep: Any, pictures: Tensor) -> list[Tensor]:
    """A ControlNet's residuals of latents (rows, 4, h, w), the middle's last; pictures are in [-1, 1]."""
    context = case.input("context").expand(len(x), -1, -1)
    down, middle = network(x, timestep, encoder_hidden_states=context, controlnet_cond=pictures, return_dict=False)
    return [*down, middle]


RUNNERS: Mapping[str, Runner] = {
    "motion-module": run_motion,
    "view-controlnet": run_controlnet,
    "reference-write": run_write,
    "step": run_step,
    "step-balance": run_balance,
    "sample": run_sample,
    "train": run_train,
}

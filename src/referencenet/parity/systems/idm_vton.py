"""IDM-VTON's golden cases: resampler, GarmentNet, TryonNet, whole calls, the training step and the mask."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from referencenet.checkpoints.idm_vton import PUBLISHED, RESAMPLER, TRYON_NET
from referencenet.methods.idm_vton import IDMVTONPipeline, training_loss
from referencenet.networks.image_prompt import with_image_prompt
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import banked, predict, sample, values
from referencenet.parity.record import Produced, Runner, cut, observed
from referencenet.parity.system import Network, System, scheduler_of
from referencenet.pipelines.dressing import mask_to_latent_size
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


def tryon_net(_case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """TryonNet's configuration."""
    return {"unet": {key: value for key, value in config.items() if key not in TRAINED_ELSEWHERE}}


def resampler(_case: Case, config: Mapping[str, Any]) -> dict[str, Any]:
    """A resampler's, alone or inside TryonNet's."""
    own = config.get("resampler", config)
    return {"image_projection": {RESAMPLER_NAMES[key]: value for key, value in own.items()}}


SYSTEM = System(
    pipeline=IDMVTONPipeline,
    published=PUBLISHED,
    networks={
        "unet": Network("tryon_net", tryon_net),
        "image_projection": Network("tryon_net", resampler),
        "reference_unet": Network("garment_net", lambda _case, config: {"reference_unet": config}),
    },
)
ALONE = System(
    pipeline=IDMVTONPipeline, published=PUBLISHED, networks={"image_projection": Network("resampler", resampler)}
)


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


def garment(case: Case) -> Shown:
    """What GarmentNet is shown."""
    return Shown(latents=case.input("cloth_latents"), context=case.input("text_embeds_cloth"))


def space(case: Case) -> Tensor:
    """Mask, masked persons and DensePose, (persons, 9, h, w)."""
    mask = mask_to_latent_size(case.input("mask"), case.inputs["mask"].shape[2:])  # pyright: ignore[reportArgumentType]
    return torch.cat([mask, case.input("masked_image_latents"), case.input("pose_latents")], dim=1)


def added(case: Case, half: str = "") -> dict[str, Tensor]:
    """Pooled words and sizes."""
    pooled = case.input(f"{half}pooled_prompt_embeds")
    return {"text_embeds": pooled, "time_ids": torch.tensor([case.scalar("time_ids")] * len(pooled))}


@torch.no_grad()
def run_resampler(case: Case) -> Produced:
    """The resampler, layer by layer."""
    network = ALONE.network(case, "image_projection")
    watched = {"proj_in": "proj_in"}
    for i in range(len(network.layers)):
        watched |= {f"layers.{i}": f"layer{i}_ff", f"layers.{i}.attn": f"layer{i}_attn"}
    tokens, outputs = observed(network, watched, case.input("clip_hidden"))
    before = network.latents
    for i in range(len(network.layers)):
        outputs[f"layer{i}_attn"] = before + outputs[f"layer{i}_attn"]
        before = outputs[f"layer{i}_ff"]
    return Produced({**outputs, "tokens": tokens}, {})


def run_garmentnet(case: Case) -> Produced:
    """GarmentNet's bank, in the order in which it is written."""
    pipe = SYSTEM.pipe(case, "reference_unet")
    outputs = banked(pipe, garment(case), case.scalar("timestep"), "feature_{index:02}")
    if len(outputs) != case.scalar("num_features"):
        raise CaseError(
            f"{case.id}: num_features is {case.scalar('num_features')}, but its network has {len(outputs)} sites"
        )
    return Produced(outputs, {})


@torch.no_grad()
def run_tryonnet(case: Case) -> Produced:
    """One prediction of TryonNet, without and with guidance."""
    pipe, t, latents = SYSTEM.pipe(case), case.scalar("timestep"), case.input("latents")
    tokens = pipe.image_projection(case.input("clip_hidden"))
    given = {
        "prompt": (case.input("prompt_embeds"), case.input("negative_prompt_embeds")),
        "image": (tokens, pipe.image_projection(case.input("clip_hidden_uncond"))),
        "added": (added(case), added(case, "negative_")),
        "space": space(case),
    }
    watched = {f"{FIRST}.attn2": "first_attn2", "add_embedding": "add_embedding"}
    for name, block in (("first", FIRST), ("last", LAST)):
        watched |= {block: f"{name}_block", f"{block}.attn1": f"{name}_attn1", f"{block}.norm1": f"{name}_own"}
    step = partial(predict, pipe, latents, t, garment(case), given)
    outputs = step(raw="noise_pred", guided="alone", watched=watched)
    bank = banked(pipe, garment(case), t, "{block}")
    for name, block in (("first", FIRST), ("last", LAST)):
        # behind our reading of the own tokens what the garment's tokens would get as queries: (b, n + t, c)
        attn, own = pipe.unet.get_submodule(f"{block}.attn1"), outputs[f"{name}_own"]
        queried = attn(torch.cat([own, bank[block]], dim=1))[:, own.shape[1] :]
        outputs[f"{name}_attn1"] = torch.cat([outputs[f"{name}_attn1"], queried], dim=1)
    guided = {f"{FIRST}.attn1": "first_attn1_cfg"}
    outputs |= step(raw="noise_pred_cfg", watched=guided, scale=case.scalar("guidance_scale"))
    outputs["first_attn1_cfg"] = outputs["first_attn1_cfg"][[0, len(latents)]]
    return Produced(
        cut(case, outputs | {"ip_tokens": tokens}), {"first_attn1": QUERIES_NOTE, "last_attn1": QUERIES_NOTE}
    )


def run_sample(case: Case) -> Produced:
    """The pipeline's call from ready latents."""
    pipe = SYSTEM.pipe(case, scheduler=scheduler_of(case, GivenNoise))
    pipe.scheduler.noise = [case.input(f"variance_noise_{i}") for i in range(case.scalar("num_inference_steps"))]
    is_guided, names = case.scalar("guidance_scale") > 1, ["prompt_embeds", "pooled_prompt_embeds"]
    names += [f"negative_{name}" for name in names] if is_guided else []
    call = partial(
        pipe,
        **{name: case.input(name) for name in [*names, "mask_image", "masked_image_latents"]},
        densepose_latents=case.input("pose_latents"),
        garment_latents=case.input("cloth_latents"),
        garment_prompt_embeds=case.input("text_embeds_cloth"),
        image_states=case.input("clip_hidden"),
        negative_image_states=case.input("clip_hidden_uncond") if is_guided else None,
    )
    told: dict[str, Tensor] = {}

    def keep_conditions(_module: nn.Module, args: Any, kwargs: Any) -> None:
        told["mask_latent"] = args[0][: case.inputs["latents"].shape[0], 4:5]
        told["time_ids"] = kwargs["added_cond_kwargs"]["time_ids"]

    handle = pipe.unet.register_forward_pre_hook(keep_conditions, with_kwargs=True)
    try:
        outputs = sample(case, pipe, call, "latents_{}")
    finally:
        handle.remove()
    alphas = pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps]
    return Produced({**outputs, **told, "alphas_cumprod_at_timesteps": alphas}, {})


def run_train(case: Case) -> Produced:
    """One training step: loss and gradients of TryonNet and the resampler."""
    pipe = SYSTEM.pipe(case)
    for net in (pipe.unet, pipe.image_projection):
        net.train().requires_grad_(True)
    timesteps, noise = torch.tensor(case.scalar("timesteps")), case.input("noise")
    noisy = scheduler_of(case, DDPMScheduler).add_noise(case.input("image_latents"), noise, timesteps)
    loss, predicted = training_loss(
        pipe.unet,
        pipe.reference_unet,
        noisy=noisy,
        noise=noise,
        timesteps=timesteps,
        garment=garment(case),
        space=space(case),
        context=with_image_prompt(case.input("prompt_embeds"), pipe.image_projection(case.input("clip_hidden"))),
        added=added(case),
    )
    loss.backward()
    trained = [*pipe.unet.parameters(), *pipe.image_projection.parameters()]
    gradients = [parameter.grad.norm() for parameter in trained if parameter.grad is not None]
    outputs = {
        "loss": loss.detach().reshape(1),
        "noise_pred": predicted.detach(),
        "noisy_latents": noisy,
        "grad_norm": torch.stack(gradients).norm().reshape(1),
    }
    for name in case.expected:
        if name.startswith("grad/"):
            outputs[name] = gradient(pipe, name.removeprefix("grad/"))
    return Produced(outputs, {})


def gradient(pipe: Any, key: str) -> Tensor:
    """The gradient of a parameter under its published name."""
    is_prompt = key.startswith("encoder_hid_proj.")
    net, keymap = (pipe.image_projection, RESAMPLER) if is_prompt else (pipe.unet, TRYON_NET)
    found = net.get_parameter(keymap.name(key)).grad
    if found is None:
        raise CaseError(f"{key} gets no gradient; correct the case's outputs")
    return found


def masks(case: Case) -> dict[str, Tensor]:
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
    return outputs


RUNNERS: Mapping[str, Runner] = {
    "resampler": run_resampler,
    "garmentnet": run_garmentnet,
    "tryonnet": run_tryonnet,
    "sample": run_sample,
    "mask": values(masks),
    "train": run_train,
}

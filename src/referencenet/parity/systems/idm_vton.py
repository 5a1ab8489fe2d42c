"""IDM-VTON's golden cases: resampler, GarmentNet, TryonNet, whole calls, the training step and the mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from referencenet.checkpoints.idm_vton import RESAMPLER, TRYON_NET
from referencenet.methods.idm_vton import IDMVTONPipeline
from referencenet.parity import kinds
from referencenet.parity.cases import Case, CaseError
from referencenet.parity.kinds import Outputs
from referencenet.parity.record import Runner, each_output, observed
from referencenet.parity.system import Network, System, scheduler_of
from referencenet.pipelines.passes import Pass
from referencenet.preprocess.agnostic import ARM_WIDTHS, agnostic_mask
from referencenet.training.config import RunConfig
from referencenet.training.predicted import Inputs
from referencenet.training.recipes.idm_vton.recipe import IDMVTONRecipe

PLACES = {
    "first": "down_blocks.1.attentions.0.transformer_blocks.0",
    "last": "up_blocks.1.attentions.2.transformer_blocks.1",
}

CALL_INPUTS = {
    "densepose_latents": "pose_latents",
    "garment_latents": "cloth_latents",
    "garment_prompt_embeds": "text_embeds_cloth",
    "image_states": "clip_hidden",
}
"""Arguments of the call to the cases' inputs, where they differ."""

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
    IDMVTONPipeline,
    {
        "unet": Network("tryon_net", tryon_net),
        "image_projection": Network("tryon_net", resampler),
        "reference_unet": Network("garment_net", lambda _case, config: {"reference_unet": config}),
    },
)
ALONE = System(IDMVTONPipeline, {"image_projection": Network("resampler", resampler)})
GARMENT = kinds.Shows("cloth_latents", "text_embeds_cloth")


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


def space(case: Case) -> Tensor:
    """Mask, masked persons and DensePose, (persons, 9, h, w)."""
    mask = (case.input("mask") >= 0.5).float()
    return torch.cat([mask, case.input("masked_image_latents"), case.input("pose_latents")], dim=1)


def added(case: Case, half: str = "") -> Outputs:
    """Pooled words and sizes."""
    pooled = case.input(f"{half}pooled_prompt_embeds")
    return {"text_embeds": pooled, "time_ids": torch.tensor([case.scalar("time_ids")] * len(pooled))}


def resampled(case: Case) -> Outputs:
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
    return outputs | {"tokens": tokens}


def garment_net(case: Case) -> Outputs:
    """GarmentNet's bank, in the order in which it is written."""
    pipe, count = SYSTEM.pipe(case, "reference_unet"), case.scalar("num_features")
    outputs = kinds.banked(pipe, GARMENT(case), case.scalar("timestep"), "feature_{index:02}")
    if len(outputs) != count:
        raise CaseError(f"{case.id}: num_features is {count}, but its network has {len(outputs)} sites")
    return outputs


def tryon(case: Case) -> Outputs:
    """One prediction of TryonNet, without and with guidance."""
    pipe, t, latents = SYSTEM.pipe(case), case.scalar("timestep"), case.input("latents")
    tokens = pipe.image_projection(case.input("clip_hidden"))
    given = {
        "prompt": (case.input("prompt_embeds"), case.input("negative_prompt_embeds")),
        "image": (tokens, pipe.image_projection(case.input("clip_hidden_uncond"))),
        "added": (added(case), added(case, "negative_")),
        "space": space(case),
    }
    attn1, watched = f"{PLACES['first']}.attn1", {"add_embedding": "add_embedding"}
    for name, block in PLACES.items():
        watched |= {f"{block}.{part}": f"{name}_{part}" for part in ("norm1", "attn1", "attn2")}
        watched[block] = f"{name}_block"
    predict = partial(kinds.predict, pipe, latents, t, GARMENT(case), given)
    outputs, bank = predict(raw="noise_pred", watched=watched), kinds.banked(pipe, GARMENT(case), t, "{site}")
    for name, block in PLACES.items():
        # behind our reading of the own tokens what the garment's tokens would get as queries: (b, n + t, c)
        attn, own, read = pipe.unet.get_submodule(f"{block}.attn1"), outputs[f"{name}_norm1"], outputs[f"{name}_attn1"]
        queried = attn(torch.cat([own, bank[f"{block}.attn1"]], dim=1))[:, own.shape[1] :]
        outputs[f"{name}_attn1"] = torch.cat([read, queried], dim=1)
    guided = predict(raw="noise_pred_cfg", watched={attn1: "both"}, scale=case.scalar("guidance_scale"))
    return outputs | guided | {"ip_tokens": tokens, "first_attn1_cfg": guided["both"][[0, len(latents)]]}


def sample(case: Case) -> Outputs:
    """The pipeline's call from ready latents."""
    pipe = SYSTEM.pipe(case, scheduler=scheduler_of(case, GivenNoise))
    pipe.scheduler.noise = [case.input(f"variance_noise_{i}") for i in range(case.scalar("num_inference_steps"))]
    is_guided, names = case.scalar("guidance_scale") > 1, ["prompt_embeds", "pooled_prompt_embeds"]
    names += [f"negative_{name}" for name in names] if is_guided else []
    told = {name: name for name in (*names, "mask_image", "masked_image_latents")} | CALL_INPUTS
    told |= {"negative_image_states": "clip_hidden_uncond"} if is_guided else {}
    call = partial(pipe, **{ours: case.input(theirs) for ours, theirs in told.items()})
    seen: Outputs = {}

    def look(_module: nn.Module, args: Any, kwargs: Any) -> None:
        seen["mask_latent"] = args[0][: case.inputs["latents"].shape[0], 4:5]
        seen["time_ids"] = kwargs["added_cond_kwargs"]["time_ids"]

    handle = pipe.unet.register_forward_pre_hook(look, with_kwargs=True)
    try:
        return {**kinds.sample(case, pipe, call, "latents_{}"), **seen}
    finally:
        handle.remove()


@torch.enable_grad()
def train(case: Case) -> Outputs:
    """One training step: loss and gradients of TryonNet and the resampler."""
    recipe = IDMVTONRecipe(SYSTEM.pipe(case), "tryon", RunConfig(steps=1))
    recipe.loss = replace(recipe.loss, scheduler=scheduler_of(case, DDPMScheduler))
    prompt, words = (case.input("prompt_embeds"),) * 2, (added(case),) * 2
    inputs = Inputs(
        latents=case.input("image_latents"),
        noise=case.input("noise"),
        timesteps=torch.tensor(case.scalar("timesteps")),
        shown=GARMENT(case),
        given={"prompt": prompt, "added": words, "space": space(case)},
        passes=(Pass(factor=1.0),) * len(prompt[0]),
        further={"image_states": case.input("clip_hidden")},
    )
    trained = {"encoder_hid_proj.": (recipe.pipe.image_projection, RESAMPLER), "": (recipe.pipe.unet, TRYON_NET)}
    seen: Outputs = {}
    with each_output(recipe.pipe.unet, {"": "noise_pred"}, seen), recipe.losses(inputs) as losses:
        losses["loss"].backward()
    noisy = recipe.loss.noisy(inputs.latents, inputs.noise, inputs.timesteps)
    predicted, loss = seen["noise_pred"], losses["loss"]
    gradients = [p.grad.norm() for network, _ in trained.values() for p in network.parameters() if p.grad is not None]
    outputs = {"loss": loss.reshape(1), "noise_pred": predicted, "noisy_latents": noisy}
    outputs["grad_norm"] = torch.stack(gradients).norm().reshape(1)
    for name in case.expected:
        if name.startswith("grad/"):
            key = name.removeprefix("grad/")
            network, keymap = next(found for start, found in trained.items() if key.startswith(start))
            outputs[name] = network.get_parameter(keymap.name(key)).grad
            if outputs[name] is None:
                raise CaseError(f"{key} gets no gradient; correct the case's outputs")
    return outputs


def masks(case: Case) -> Outputs:
    """The clothes-agnostic mask of every variant: counts by row and column, and every eighth pixel."""
    parsing = np.zeros(case.scalar("parse_size_hw"), dtype=np.uint8)
    for label, x0, y0, x1, y1 in case.scalar("rectangles_label_x0_y0_x1_y1"):
        parsing[y0:y1, x0:x1] = label
    outputs: Outputs = {}
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
    "resampler": kinds.runner(resampled),
    "garmentnet": kinds.runner(garment_net),
    "tryonnet": kinds.runner(tryon, in_part=True, first_attn1=QUERIES_NOTE, last_attn1=QUERIES_NOTE),
    "sample": kinds.runner(sample),
    "mask": kinds.runner(masks),
    "train": kinds.runner(train),
}

"""A pipeline that reads references plainly: before every pass each is noised, and written by a pass of its own.

Built on `plain.py`; batches are told apart by how each pipeline of diffusers builds them, noise levels by the papers.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from diffusers.models.attention import FreeNoiseTransformerBlock
from torch import Tensor, nn

from plain import PlainLinks, PlainReference, Written, adain_names, attention_names, plain_reading, plain_writing

CONTROLNET_RESIDUALS = (
    "down_block_additional_residuals",
    "mid_block_additional_residual",
    "down_intrablock_additional_residuals",
)


@contextmanager
def published(
    pipe: Any,
    references: Sequence[PlainReference],
    noise: Sequence[Tensor],
    *,
    attention: float | None = 1.0,
    adain: float | None = None,
    style_fidelity: float = 0.5,
) -> Generator[None]:
    """Inside, `pipe` is linked plainly: every call of its UNet first writes each reference, noised by `noise[step]`.

    Args:
        pipe: A pipeline.
        references: At least one.
        noise: Per pass (rows, 4, h, w), or (1, 4, h, w) for all rows.
        attention: The link's weight; None: not linked.
        adain: The same.
        style_fidelity: 0 to 1.
    """
    unet, forward = pipe.unet, pipe.unet.forward
    sites = [] if attention is None else attention_names(unet, attention)
    adain_sites = [] if adain is None else adain_names(unet, adain)
    everywhere = attention_names(unet)
    step = -1

    def linked_forward(sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **kwargs: Any) -> Any:
        nonlocal step
        step += 1
        guided, perturbed = _is_guided(pipe, sample), _perturbed(pipe, everywhere)
        rows = _reading(pipe, sample, guided, bool(perturbed), style_fidelity)
        unread = [name for name in perturbed if name not in sites]
        links = PlainLinks([*sites, *unread], adain_sites, style_fidelity, guided,
                           rows=rows, perturbed=perturbed, unread=unread)  # fmt: skip
        write_links = PlainLinks(everywhere if perturbed else sites, adain_sites)
        write_kwargs = {key: value for key, value in kwargs.items() if key not in CONTROLNET_RESIDUALS}
        context = encoder_hidden_states
        if sample.ndim == 5:  # of films every frame has its row
            context = context[:: sample.shape[2]]
        written = []
        for reference in references:
            if reference.steps is not None and step not in reference.steps:
                continue
            noisy = _noised(pipe, reference.latents, noise[step], timestep, sample)
            with _windows_of_one_frame(unet), plain_writing(unet, write_links, reference) as bank:
                forward(noisy, timestep, encoder_hidden_states=context, **write_kwargs)
            if perturbed:  # what is perturbed reads what its conditional row left
                _repeat_conditional(bank, guided)
            written.append(bank)
        with plain_reading(unet, links, written) if written else nullcontext():
            return forward(sample, timestep, encoder_hidden_states=encoder_hidden_states, **kwargs)

    unet.forward = linked_forward
    try:
        yield
    finally:
        del unet.forward


@contextmanager
def _windows_of_one_frame(unet: nn.Module) -> Generator[None]:
    """Inside, FreeNoise takes the film of one frame that a reference is."""
    blocks = [module for module in unet.modules() if isinstance(module, FreeNoiseTransformerBlock)]
    before = [(block.context_length, block.context_stride) for block in blocks]
    for block in blocks:
        block.context_length = block.context_stride = 1
    yield
    for block, (length, stride) in zip(blocks, before, strict=True):
        block.context_length, block.context_stride = length, stride


def _is_guided(pipe: Any, sample: Tensor) -> bool:
    """Whether there are unconditional rows; some pipelines' property always denies it."""
    if "Panorama" in type(pipe).__name__ or "XLInstruct" in type(pipe).__name__:
        return sample.shape[0] > 1 and torch.equal(sample[0], sample[1])
    return pipe.do_classifier_free_guidance


def _reading(pipe: Any, sample: Tensor, guided: bool, perturbed: bool, style_fidelity: float) -> list[float]:
    """How much every sample reads, by the order in which each pipeline builds its batch."""
    name, less = type(pipe).__name__, 1 - style_fidelity
    last = [1.0] if perturbed else []
    if "InstructPix2Pix" in name:  # words and picture, picture, nothing
        parts = [1.0, less, less] if guided else [1.0]
    else:
        parts = [*([less] if guided else []), 1.0, *last]
    count = sample.shape[0] // len(parts)
    if "Panorama" in name:  # view by view
        return parts * count
    return [amount for amount in parts for _ in range(count)]


def _perturbed(pipe: Any, sites: Sequence[str]) -> list[str]:
    """The self-attentions that the pipeline perturbs."""
    if not getattr(pipe, "do_perturbed_attention_guidance", False):
        return []
    return [name for name in sites if any(re.search(layer, name) for layer in pipe.pag_applied_layers)]


def _repeat_conditional(bank: Written, guided: bool) -> None:
    """Put in the place of the last part's rows those of the part before it."""
    for tensors in (bank.tokens, bank.means, bank.variances):
        for name, rows in tensors.items():
            parts = rows.chunk(3 if guided else 2)
            tensors[name] = torch.cat([*parts[:-1], parts[-2]])


def noise_level(config: Any, timestep: float) -> tuple[float, float]:
    """(alpha, sigma) of what a network was taught to see at a timestep: x = alpha x_0 + sigma noise.

    alpha^2 is the product of 1 - beta up to the timestep (Ho et al. 2020, eq. 4), the betas those of Stable Diffusion
    (Rombach et al. 2022: linear between their square roots). Between two timesteps log(sigma / alpha) is linear in
    time, as k-diffusion has it (Karras et al. 2022, appendix C).
    """
    assert config["beta_schedule"] == "scaled_linear"
    roots = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, config["num_train_timesteps"])
    kept = np.cumprod(1 - roots**2)
    ratio = float(np.exp(np.interp(timestep, np.arange(len(kept)), 0.5 * np.log((1 - kept) / kept))))
    return (1 + ratio**2) ** -0.5, ratio * (1 + ratio**2) ** -0.5


def _noised(pipe: Any, latents: Tensor, noise: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    """The UNet's input of the write pass: the reference at the pass's noise level, and what stands beside it."""
    rows = sample.shape[0]
    latents = latents.expand(rows, *latents.shape[1:])
    noise = noise.repeat(rows // noise.shape[0], 1, 1, 1)
    alpha, sigma = noise_level(pipe.scheduler.config, float(timestep))
    noisy = alpha * latents + sigma * noise
    if sample.shape[1] == 9:  # inpainting checkpoints: nothing is masked, all of the reference is seen
        noisy = torch.cat([noisy, torch.zeros_like(noisy[:, :1]), latents], dim=1)
    if sample.shape[1] == 8:  # InstructPix2Pix: the mean of the posterior, unscaled, but for rows without a picture
        pictures = latents / pipe.vae.config.scaling_factor
        pictures = pictures * (sample[:, 4:].flatten(1).abs().sum(1) > 0).view(-1, 1, 1, 1)
        noisy = torch.cat([noisy, pictures], dim=1)
    if sample.ndim == 5:  # films: the reference is a film of one frame
        noisy = noisy.unsqueeze(2)
    return noisy

"""Reference-Only and Reference-AdaIN the published way, written plainly: the baseline of speed and parity.

It follows the specification of the published pipelines step by step, with all that makes them slow: the write pass
runs on the whole guidance batch and to its end; keys and values of the reference are projected again in the read
pass; the attention over [self; reference] and the one over [self] are computed apart; at style fidelity 1 the
former is computed for the unconditional half and multiplied by 0; blocks that take no part still fill their bank.

Only the attaching differs from the published code (attention processors and hooks, taken away again, instead of
replaced methods); it costs the same. Shapes: B batch under guidance (2 x images), N tokens, C channels.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

MIN_VARIANCE = 1e-6  # as published
Pass = Literal["write", "read"]


@dataclass(kw_only=True)
class Setting:
    """What the published pipelines take, and the pass they are in."""

    attention: bool = True
    adain: bool = False
    style_fidelity: float = 0.5
    attention_weight: float = 1.0
    adain_weight: float = 1.0
    is_guided: bool = True
    current: Pass = field(default="write", init=False)

    def mix(self, linked: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        """Blend the unconditional half (the first) by style fidelity, both terms computed, as published."""
        kept = linked.clone()
        if self.is_guided and self.style_fidelity > 0:
            kept[: len(plain)] = plain
        return self.style_fidelity * kept + (1 - self.style_fidelity) * linked


class PublishedAttention:
    """Attention processor: writes its input to a bank, or attends to [self; bank] and, apart, to [self]."""

    def __init__(self, setting: Setting, is_linked: bool) -> None:
        self.setting, self.is_linked = setting, is_linked
        self.plain = AttnProcessor2_0()
        self.bank: list[torch.Tensor] = []

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Attend; hidden_states (B, N, C) is the output of norm1."""
        if self.setting.current == "write":
            self.bank.append(hidden_states.detach().clone())
            return self.plain(attn, hidden_states, *args, **kwargs)
        if not self.is_linked:
            return self.plain(attn, hidden_states, *args, **kwargs)
        linked = self.plain(attn, hidden_states, torch.cat([hidden_states, *self.bank], dim=1))
        self.bank.clear()
        if not self.setting.is_guided or self.setting.style_fidelity == 0:
            return self.setting.mix(linked, linked)
        half = hidden_states[: len(hidden_states) // 2]
        return self.setting.mix(linked, self.plain(attn, half, half))


class PublishedAdaIN:
    """Forward hook: writes mean and variance of a block's output, or gives the output the written ones."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.bank: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, module: torch.nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG002 - a hook's signature
        """Renormalise the output (B, C, H, W), bare or first of a tuple."""
        hidden_states = output[0] if isinstance(output, tuple) else output
        variance, mean = torch.var_mean(hidden_states, dim=(2, 3), keepdim=True, correction=0)
        if self.setting.current == "write":
            self.bank.append((mean, variance))
            return output
        std = variance.clamp(min=MIN_VARIANCE) ** 0.5
        reference_mean = sum(mean for mean, _ in self.bank) / len(self.bank)
        reference_variance = sum(variance for _, variance in self.bank) / len(self.bank)
        self.bank.clear()
        reference_std = torch.as_tensor(reference_variance).clamp(min=MIN_VARIANCE) ** 0.5
        linked = (hidden_states - mean) / std * reference_std + reference_mean
        mixed = self.setting.mix(linked, hidden_states[: len(hidden_states) // 2])
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed


def adain_modules(unet: Any, weight: float) -> list[Any]:
    """Modules whose outputs AdaIN renormalises at a weight in [0, 1]: mid block and last of each pair in its blocks."""
    down, up = unet.down_blocks, unet.up_blocks
    ranked = [(block, 2 * (1 - k / len(down))) for k, block in enumerate(down)]
    ranked += [(block, 2 * k / len(up)) for k, block in enumerate(up)]
    modules = [unet.mid_block] if weight >= 0 else []
    for block, rank in ranked:
        if weight >= rank:
            modules += list(getattr(block, "attentions", None) or block.resnets)
    return modules


@contextmanager
def attached(unet: Any, setting: Setting) -> Generator[None]:
    """Attach processors and hooks to a UNet2DConditionModel and take them away at the end."""
    before = unet.attn_processors
    with ExitStack() as stack:
        stack.callback(unet.set_attn_processor, before)
        if setting.attention:
            blocks: list[Any] = [block for block in depth_first(unet) if isinstance(block, BasicTransformerBlock)]
            blocks.sort(key=lambda block: -block.norm1.normalized_shape[0])
            for i, block in enumerate(blocks):
                is_linked = setting.attention_weight > i / len(blocks)
                block.attn1.set_processor(PublishedAttention(setting, is_linked))
        if setting.adain:
            for module in adain_modules(unet, setting.adain_weight):
                stack.callback(module.register_forward_hook(PublishedAdaIN(setting)).remove)
        yield


def depth_first(module: torch.nn.Module) -> list[Any]:
    """All modules, parents before children, children in the order of their registration."""
    return [module, *(inner for child in module.children() for inner in depth_first(child))]


@dataclass(kw_only=True)
class Inputs:
    """Inputs of one call; conditions are those of the guidance batch, unconditional half first."""

    latents: torch.Tensor
    reference: torch.Tensor
    noise: Sequence[torch.Tensor]
    conditions: Mapping[str, Any]


def step(
    unet: Any, scheduler: Any, setting: Setting, inputs: Inputs, latents: torch.Tensor, index: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One denoising step's two passes.

    Args:
        unet: with the setting attached.
        scheduler: with its timesteps set.
        setting: as attached.
        inputs: of the call; noise has rows of images or of the guidance batch.
        latents: (images, 4, height, width), the current ones.
        index: number of the step.

    Returns:
        Outputs of the write pass and of the read pass, each (B, 4, height, width).
    """
    t = scheduler.timesteps[index]
    copies = 2 if setting.is_guided else 1
    reference, noise = inputs.reference, inputs.noise[index]
    if len(noise) == copies * len(reference):
        reference = torch.cat([reference] * copies)
    reference = scheduler.add_noise(reference, noise, t.reshape(1))
    reference = torch.cat([reference] * (copies * len(latents) // len(reference)))
    setting.current = "write"
    written = unet(scheduler.scale_model_input(reference, t), t, **inputs.conditions, return_dict=False)[0]
    setting.current = "read"
    doubled = scheduler.scale_model_input(torch.cat([latents] * copies), t)
    return written, unet(doubled, t, **inputs.conditions, return_dict=False)[0]


@torch.no_grad()
def sample(
    unet: Any, scheduler: Any, setting: Setting, inputs: Inputs, *, num_steps: int, guidance: float
) -> dict[str, torch.Tensor]:
    """Denoise the published way; returns the three outputs of a golden case of the kind "reference"."""
    scheduler.set_timesteps(num_steps, device=inputs.latents.device)
    latents = inputs.latents * scheduler.init_noise_sigma
    first: tuple[torch.Tensor, torch.Tensor] | None = None
    with attached(unet, setting):
        for index in range(num_steps):
            written, noise = step(unet, scheduler, setting, inputs, latents, index)
            first = first or (written, noise)
            if setting.is_guided:
                unconditional, conditional = noise.chunk(2)
                noise = unconditional + guidance * (conditional - unconditional)
            latents = scheduler.step(noise, scheduler.timesteps[index], latents, return_dict=False)[0]
    assert first is not None
    return {
        "final_latents": latents,
        "first_step_write_pass": first[0],
        "first_step_noise_pred_cfg_batch": first[1],
    }

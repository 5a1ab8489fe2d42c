"""Prompts of Stable Diffusion XL: two text models, whose states are the context and whose pooled states are added.

Letters: r rows, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin, TextualInversionLoaderMixin
from torch import Tensor

from referencenet.pipelines.spec import Canvas, each_for

Prompts = str | Sequence[str]
Both = tuple[Tensor, Tensor]
"""Of the prompt, and of the negative prompt."""


class SDXLText(StableDiffusionXLLoraLoaderMixin, TextualInversionLoaderMixin):
    """What a pipeline with SDXL's two text models and tokenizers adds: diffusers' encoding, LoRAs, new words.

    It has the setting `force_zeros_for_empty_prompt`: whether the states of no negative prompt are zeros.
    """

    _lora_loadable_modules = ["unet", "text_encoder", "text_encoder_2"]
    encode_prompt = StableDiffusionXLPipeline.encode_prompt


def sdxl_states(pipe: Any, prompts: Sequence[str]) -> Tensor:
    """States of prompts, (prompts, tokens, channels of both models)."""
    return pipe.encode_prompt(list(prompts), device=pipe._execution_device, do_classifier_free_guidance=False)[0]


def guided_sdxl_states(
    pipe: Any, prompt: Prompts | None, negative: Prompts | None, *, prompt_embeds: Tensor | None,
    negative_prompt_embeds: Tensor | None, pooled_prompt_embeds: Tensor | None,
    negative_pooled_prompt_embeds: Tensor | None,
) -> tuple[Both, Both]:  # fmt: skip
    """States and pooled states, each of prompt and negative prompt; without guidance both are the prompt's.

    Call it inside `calling`.

    Args:
        pipe: With SDXL's text models.
        prompt: One text or several.
        negative: Of the unconditional pass; one, or one each; None: zeros, or the empty text, as the pipeline is set.
        prompt_embeds: Instead of `prompt`, (r, tokens, c).
        negative_prompt_embeds: Instead of `negative`.
        pooled_prompt_embeds: Beside `prompt_embeds`, (r, c).
        negative_pooled_prompt_embeds: Beside `negative_prompt_embeds`.

    Raises:
        ValueError: If embeddings come without their pooled ones, or there are several of both texts, unequally many.
    """
    for name, states, pooled in (
        ("prompt_embeds", prompt_embeds, pooled_prompt_embeds),
        ("negative_prompt_embeds", negative_prompt_embeds, negative_pooled_prompt_embeds),
    ):
        if (states is None) != (pooled is None):
            raise ValueError(f"give {name} and {name.replace('prompt', 'pooled_prompt')} together, or neither of them.")
    prompts = None if prompt_embeds is not None else _listed(prompt or "")
    number = len(prompts) if prompts is not None else len(prompt_embeds)  # pyright: ignore[reportArgumentType]
    negatives = None if negative is None or negative_prompt_embeds is not None else _listed(negative)
    if negatives is not None and pipe.do_classifier_free_guidance:
        if prompts is not None and len(prompts) == 1:
            prompts, number = prompts * len(negatives), len(negatives)
        negatives = negatives * number if len(negatives) == 1 else negatives
        if len(negatives) != number:
            raise ValueError(
                f"{len(negatives)} negative prompts were given for {number} prompts; give one for all, or one each."
            )
    states, negative_states, pooled, negative_pooled = pipe.encode_prompt(
        prompts,
        device=pipe._execution_device,
        do_classifier_free_guidance=pipe.do_classifier_free_guidance,
        negative_prompt=negatives,
        prompt_embeds=prompt_embeds,
        negative_prompt_embeds=negative_prompt_embeds,
        pooled_prompt_embeds=pooled_prompt_embeds,
        negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
    )
    if not pipe.do_classifier_free_guidance:
        return (states, states), (pooled, pooled)
    return (states, negative_states), (pooled, negative_pooled)


def added_conditions(pooled: Both, canvas: Canvas) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What `Added` takes: pooled states (r, c), and the size as it is drawn, from the corner; one object if all agree.

    Args:
        pooled: Of prompt and negative prompt.
        canvas: What is drawn.
    """
    sizes = torch.tensor([[canvas.height, canvas.width, 0.0, 0.0, canvas.height, canvas.width]])

    def added(states: Tensor) -> dict[str, Tensor]:
        return {"text_embeds": states, "time_ids": each_for(sizes.to(states.device), len(states))}

    seen = added(pooled[0])
    return seen, seen if pooled[1] is pooled[0] else added(pooled[1])


def _listed(texts: Prompts) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)

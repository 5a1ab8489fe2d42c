"""LoRA and textual inversion, as diffusers loads them, on systems whose base is Stable Diffusion 1 or 2."""

from __future__ import annotations

from diffusers.loaders import StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin


class TextAdapters(StableDiffusionLoraLoaderMixin, TextualInversionLoaderMixin):
    """For a system that reads words: LoRAs for denoiser and text encoder, words with a learned meaning."""

    _lora_loadable_modules = ["unet", "text_encoder"]


class UNetAdapters(StableDiffusionLoraLoaderMixin):
    """For a system without words: LoRAs for the denoiser. What a file holds for a text encoder is left out."""

    _lora_loadable_modules = ["unet"]
    text_encoder = None

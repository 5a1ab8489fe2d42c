"""The folder that `refnet comfyui install` copies: the nodes themselves lie in the installed package."""

from referencenet.comfyui.extension import comfy_entrypoint

__all__ = ["comfy_entrypoint"]

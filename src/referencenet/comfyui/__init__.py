"""Nodes for ComfyUI, on the public API alone. Imported by ComfyUI; nothing else in this package needs it."""

"""DensePose as TorchScript files of tiny networks whose answers are known, in both forms in which it is released."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor


def maps(red: Tensor, blue: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two people in one box: part 3 on the left, 20 on the right, none in the lower half; one is all 7 if blue."""
    coarse = torch.zeros(2, 2, 8, 8)
    coarse[:, 1, :4] = 5.0
    coarse[:, 0, 4:] = 5.0
    fine = torch.zeros(2, 25, 8, 8)
    fine[:, 3, :, :4] = scale
    fine[:, 20, :, 4:] = scale
    fine[1, 7] = 9.0 * float(bool(blue > red))
    return torch.tensor([[4.0, 6.0, 20.9, 26.5], [4.0, 6.0, 20.9, 26.5]]), coarse, fine


class Newer(torch.nn.Module):
    """As dajes/DensePose-TorchScript exports it: (H, W, 3) in the order of OpenCV, to tensors by name."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, original_image: Tensor, bgr: bool = True) -> dict[str, Tensor]:  # noqa: ARG002
        boxes, coarse, fine = maps(original_image[0, 0, 2], original_image[0, 0, 0], self.scale)
        return {
            "pred_boxes": boxes, "scores": torch.tensor([0.9, 0.5]), "pred_densepose_coarse_segm": coarse,
            "pred_densepose_fine_segm": fine,
        }  # fmt: skip


class Older(torch.nn.Module):
    """As webui's annotators have it: (3, H, W) RGB, to five tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        boxes, coarse, fine = maps(image[0, 0, 0], image[2, 0, 0], self.scale)
        return boxes, coarse, fine, fine, fine


def saved(network: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises another format
        torch.jit.save(torch.jit.script(network), path)
    return path

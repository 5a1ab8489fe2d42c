"""Third stage: the pose guider's context learns where on a figure in this pose patterns and emblems lie.

The denoiser must draw a chessboard on a trunk of which a skeleton alone tells the place, and the error of noisy
pictures teaches that late, if at all. Paperdoll knows where a pattern would lie whatever a character wears, so a small
network can be asked for it directly. Its answers are thrown away; the features from which they are read guide the
denoiser. Build and garment, which a skeleton does not tell, are what it cannot know.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from referencenet.builtin.training.data import PictureSet, skeletons_to_tensors
from referencenet.builtin.training.stepwise import Stepwise
from referencenet.media.files import written_whole
from referencenet.networks.pose_guider import PoseContext
from referencenet.paperdoll.cloth_maps import CLOTHS, cloth_maps
from referencenet.paperdoll.scene import Scene
from referencenet.training.draws import step_generator

CONTEXT = 32
"""Width of the built-in model's context."""
CLOTH = 10.0
"""How many times more a place that some pattern would cover counts than the rest of the picture."""


def draw_maps(path: Path, pictures: PictureSet, *, workers: int = 2) -> tuple[Tensor, Tensor]:
    """Draw the maps of each character's first whole figure, or read them where they are already.

    Args:
        path: File of the maps.
        pictures: The set.
        workers: Processes.

    Returns:
        Positions in the set, (n,), and maps at the latents' resolution, (n, cloths, size / 2, size / 2) uint8.
    """
    index = _first_whole(pictures)
    size = pictures.pictures.shape[1]
    shape = len(index), len(CLOTHS), size // 2, size // 2
    if not (path.is_file() and np.load(path, mmap_mode="r").shape == shape):
        records = [pictures.records[i] for i in index.tolist()]
        jobs = [(record["character"], record["scene"], size) for record in records]
        with ProcessPoolExecutor(workers) as pool:
            maps = np.stack(list(pool.map(_halved_maps, jobs, chunksize=16)))
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.save(file, maps)
    return index, torch.from_numpy(np.load(path))


def _first_whole(pictures: PictureSet) -> Tensor:
    """The first whole figure of every character that has one, (n,)."""
    table = pictures.whole.view(-1, pictures.scenes)
    some = torch.nonzero(table.any(dim=1)).flatten()
    return some * pictures.scenes + table[some].int().argmax(dim=1)


def _halved_maps(job: tuple[int, int, int]) -> np.ndarray:
    """The maps of one scene, pairs of rows and columns averaged, uint8."""
    character, scene, size = job
    maps = cloth_maps(Scene.from_seeds(character, scene), size)
    maps = maps.reshape(len(maps), size // 2, 2, size // 2, 2).mean(axis=(2, 4))
    return np.rint(maps * 255).astype(np.uint8)


class GuiderRecipe(Stepwise):
    """Trains a context.

    Args:
        context: What is trained.
        skeletons: (n, H, W, 3) uint8.
        maps: (n, cloths, H / factor, W / factor) uint8, of the same figures.
        batch: Figures of a step.
        seed: Of the run.
        device: Where to train.
    """

    name = "guider"

    def __init__(
        self,
        context: PoseContext,
        skeletons: np.ndarray,
        maps: Tensor,
        *,
        batch: int = 48,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.context = context.to(self.device, memory_format=torch.channels_last)
        heads = nn.Conv2d(context.config.channels, len(CLOTHS), 1).to(self.device)
        nn.init.zeros_(heads.weight)
        nn.init.zeros_(heads.bias)  # pyright: ignore[reportArgumentType]
        self.modules = {"context": context, "heads": heads}
        self.skeletons, self.maps = skeletons, maps
        self.batch, self.seed = batch, seed

    def loss(self, step: int) -> dict[str, Tensor]:
        """Mean squared error of the maps, weighted, and the share of their variation on cloth that is not explained."""
        index = torch.randint(len(self.maps), (self.batch,), generator=step_generator(self.seed, step))
        poses = skeletons_to_tensors(self.skeletons[index.numpy()]).to(self.device)
        wanted = self.maps[index].float().div(255).to(self.device)
        error = (self.modules["heads"](self.context(poses)).float() - wanted).square()
        cloth = (wanted.amax(dim=1, keepdim=True) > 0.05).float()
        with torch.no_grad():
            mean = (wanted * cloth).sum(dim=(2, 3), keepdim=True) / cloth.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)
            unexplained = (error * cloth).sum() / ((wanted - mean).square() * cloth).sum().clamp_min(1e-6)
        return {"loss": (error * (1.0 + (CLOTH - 1.0) * cloth)).mean(), "unexplained": unexplained}

    def sheet(self) -> np.ndarray:
        """Rows: skeleton, the maps of stripes and checks as they are, and as they are told."""
        poses = self.skeletons[:8]
        told = self.modules["heads"](self.context(skeletons_to_tensors(poses).to(self.device)))
        rows = [torch.from_numpy(poses)]
        for maps in (self.maps[:8].float().div(255), told.float().cpu().clamp(0, 1)):
            for which in (CLOTHS.index(("striped", "none")), CLOTHS.index(("checked", "none"))):
                shown = F.interpolate(maps[:, which, None], poses.shape[1:3]).mul(255).round().byte()
                rows.append(shown.permute(0, 2, 3, 1).expand(-1, -1, -1, 3))
        return torch.cat([torch.cat(list(row), dim=1) for row in rows]).numpy()

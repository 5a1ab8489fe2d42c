"""First stage: the autoencoder, 64 pixels to 32x32 latents of four channels.

Convolutions only, trained on 32-pixel crops: L1 and squared error on pixels, L1 on their differences (edges stay
sharp), and a very small KL term. It halves the picture once only: sprites are all edges, and no linear code of 16x16
latents with eight channels gets above 23.6 dB on them. Ends by measuring the latents' scale, which the diffusion
model needs at unit variance.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from referencenet.builtin.training.data import tensors_to_pictures, to_tensors
from referencenet.builtin.training.stepwise import Stepwise
from referencenet.training.draws import step_generator

LATENT_CHANNELS = 4


def make_vae() -> AutoencoderKL:
    """The built-in model's autoencoder, untrained; its posterior starts narrow: there is something to decode."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    with torch.no_grad():
        vae.quant_conv.weight[LATENT_CHANNELS:] = 0.0
        vae.quant_conv.bias[LATENT_CHANNELS:] = -6.0  # log variance
    return vae


class VaeRecipe(Stepwise):
    """Trains an autoencoder on crops.

    Args:
        vae: What is trained.
        pictures: (count, height, width, 3) uint8, may be memory-mapped.
        batch: Crops of a step.
        crop: Their side in pixels.
        seed: Of the run.
        device: Where to train.
    """

    name = "vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        pictures: np.ndarray,
        *,
        batch: int = 32,
        crop: int = 32,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.vae, self.pictures = vae.to(self.device), pictures
        self.modules = {"vae": vae}
        self.batch, self.crop, self.seed = batch, crop, seed

    def loss(self, step: int) -> dict[str, Tensor]:
        """Reconstruction, edges and KL of one batch of crops."""
        generator = step_generator(self.seed, step)
        target = self._crops(generator).to(self.device)
        posterior = self.vae.encode(target).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(self.device)
        restored = self.vae.decode(posterior.mean + posterior.std * noise).sample
        pixels = F.l1_loss(restored, target)
        edges = F.l1_loss(restored.diff(dim=-1), target.diff(dim=-1)) + F.l1_loss(
            restored.diff(dim=-2), target.diff(dim=-2)
        )
        squared = F.mse_loss(restored, target)
        kl = posterior.kl().mean() / target[0].numel()
        psnr = -10 * torch.log10(squared / 4)
        return {"loss": pixels + 0.5 * edges + 2 * squared + 1e-5 * kl, "psnr": psnr, "kl": kl}

    def sheet(self) -> np.ndarray:
        """Pictures above, their reconstructions below."""
        pictures = self.pictures[:: max(1, len(self.pictures) // 12)][:12]
        restored = reconstruct(self.vae, pictures)
        return np.concatenate([np.concatenate(list(row), axis=1) for row in (pictures, restored)], axis=0)

    def _crops(self, generator: torch.Generator) -> Tensor:
        """(batch, 3, crop, crop) in [-1, 1]."""
        count, height, width = self.pictures.shape[:3]
        chosen = torch.randint(count, (self.batch,), generator=generator).tolist()
        tops = torch.randint(height - self.crop + 1, (self.batch,), generator=generator).tolist()
        lefts = torch.randint(width - self.crop + 1, (self.batch,), generator=generator).tolist()
        places = zip(chosen, tops, lefts, strict=True)
        return to_tensors(np.stack([self.pictures[i, y : y + self.crop, x : x + self.crop] for i, y, x in places]))


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: np.ndarray, batch: int = 64) -> Tensor:
    """Latents as the diffusion model takes them, the posterior's mean: (count, 4, height / 2, width / 2) float32."""
    shift = vae.config.shift_factor or 0.0
    parts = []
    for start in range(0, len(pictures), batch):
        mean = vae.encode(to_tensors(pictures[start : start + batch]).to(vae.device)).latent_dist.mean
        parts.append(((mean - shift) * vae.config.scaling_factor).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor, batch: int = 64) -> np.ndarray:
    """Pictures (count, height, width, 3) uint8 of latents (count, 4, height / 2, width / 2)."""
    shift = vae.config.shift_factor or 0.0
    parts = [
        vae.decode(part.to(vae.device) / vae.config.scaling_factor + shift).sample for part in latents.split(batch)
    ]
    return tensors_to_pictures(torch.cat(parts))


def reconstruct(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """Pictures through the autoencoder and back, (count, height, width, 3) uint8."""
    return decode(vae, encode(vae, pictures))


@torch.no_grad()
def measure_scale(vae: AutoencoderKL, pictures: np.ndarray) -> float:
    """The factor that gives the latents of these pictures a standard deviation of one."""
    before = vae.config.scaling_factor
    return float(before / encode(vae, pictures).std())

"""IDM-VTON's start: SDXL's inpainting UNet with four channels more, which begin at zero, IP-Adapter Plus, and SDXL."""

from __future__ import annotations

from referencenet.checkpoints.idm_vton_start import BASE, PUBLISHED_START, files_of
from referencenet.checkpoints.start import Graft, Start
from referencenet.training.beginnings import SAME

START = Start(
    published=PUBLISHED_START,
    grafts={
        "unet": Graft(base=SAME, widened=[r"conv_in\.weight"]),
    },
    base_folder="stable-diffusion-xl-1.0-inpainting-0.1",
    base_source=BASE,
    fitted=files_of,
)

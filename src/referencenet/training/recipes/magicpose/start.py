"""MagicPose's start: `control_sd15_ini.ckpt` and `control_v11p_sd15_openpose.pth`, as published, which hold all."""

from __future__ import annotations

from referencenet.checkpoints.magicpose import PUBLISHED_START
from referencenet.checkpoints.start import Start

START = Start(published=PUBLISHED_START, grafts={})

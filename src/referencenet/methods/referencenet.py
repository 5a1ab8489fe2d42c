"""The pose ReferenceNet: the same person in another pose, as Animate Anyone's first stage (Hu et al., 2023) does it.

What it is:
    writer   a reference UNet of its own, run once, on clean reference latents at t = 0, with the empty prompt
    link     keys and values of the denoiser and of the reference together, at every self-attention
    guidance the unconditional half reads nothing and has no prompt; both halves are guided by the pose
    pose     a skeleton picture through a pose guider, added behind the denoiser's first convolution
A written bank is the character: with it the pipeline needs neither the reference picture nor the reference UNet.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import torch
from diffusers import AutoencoderKL, DDIMScheduler, ImagePipelineOutput, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from referencenet.links.bank import ReferenceBank
from referencenet.links.turns import Busy, turn
from referencenet.media.images import Picture, read_image, resize, to_tensor
from referencenet.networks.pose_guider import PoseGuider
from referencenet.pipelines.adapters import TextAdapters
from referencenet.pipelines.conditions import AfterConvIn, Text
from referencenet.pipelines.encoders import encode_pixels, listed, pixels_of, text_states
from referencenet.pipelines.in_turn import changed_parts
from referencenet.pipelines.options import PictureOptions
from referencenet.pipelines.passes import TwoWay
from referencenet.pipelines.pictures import PicturePipeline
from referencenet.pipelines.spec import Canvas, Once, Shown, Spec

SPEC = Spec(
    write=Once(timestep=0),
    guidance=TwoWay(blind=("prompt",)),
    conditions=(Text("prompt"), AfterConvIn("pose", "pose_guider")),
    scheduler=partial(DDIMScheduler, prediction_type="v_prediction", timestep_spacing="trailing"),
    steps=20,
    scale=1.5,
    defaults="ours: what suits the built-in model best; more guidance costs it both the person and the pose",
)


class ReferenceNetPipeline(PicturePipeline, TextAdapters):
    """Draws a person in a given pose.

    Args:
        vae: Autoencoder.
        text_encoder: Of the prompt.
        tokenizer: Of the prompt.
        unet: The denoiser; it reads.
        scheduler: Any that diffusers' Stable Diffusion takes.
        pose_guider: Of the skeleton picture.
        reference_unet: It writes; not needed where a bank is given.
    """

    spec = SPEC
    model_cpu_offload_seq = "text_encoder->reference_unet->pose_guider->unet->vae"
    _optional_components = ["reference_unet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        pose_guider: PoseGuider,
        reference_unet: UNet2DConditionModel | None = None,
    ) -> None:
        super().__init__()
        self.register(locals())

    @property
    def size_multiple(self) -> int:
        """What the sides of pictures must be multiples of: the autoencoder's factor times the denoiser's."""
        return self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def show(self, reference: Picture | Sequence[Picture], canvas: Canvas) -> Shown:
        """Pictures, brought to the area of the result, under the empty prompt."""
        return self._shown([resize(read_image(picture), canvas.size, multiple=self.size_multiple)
                            for picture in listed(reference)])  # fmt: skip

    @torch.no_grad()
    def __call__(
        self,
        reference: Picture | Sequence[Picture] | ReferenceBank | None = None,
        pose: Picture | Sequence[Picture] | None = None,
        prompt: str | Sequence[str] = "",
        *,
        bank: ReferenceBank | None = None,
        **options: Unpack[PictureOptions],
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw.

        Args:
            reference: Whom to draw: one picture, as many as there are poses, or a bank that `write` wrote.
            pose: OpenPose skeletons on black, one or several.
            prompt: What else to say (place, expression); one, or as many as there are poses.
            bank: The former name of a reference that is a bank.
            options: See `PictureOptions`; the size is that of the first pose where it is left open.

        Returns:
            The pictures, those of one pose together.

        Raises:
            ValueError: If a part is missing, or counts and sizes do not fit.
        """
        settings = self.settle(options)
        reference = self._one_reference(reference, bank)
        if pose is None:
            raise ValueError(
                "no pose was given; give a skeleton picture, such as paperdoll's skeleton(scene, 64) draws."
            )
        poses = [read_image(picture) for picture in listed(pose)]
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        width, height = settings.width or poses[0].width, settings.height or poses[0].height
        self.check_size(width, height)
        references = reference.rows if isinstance(reference, ReferenceBank) else len(listed(reference))
        people = max(len(poses), references, len(prompts))
        for count, what in ((len(poses), "poses"), (references, "references"), (len(prompts), "prompts")):
            if count not in (1, people):
                raise ValueError(f"{count} {what} were given for {people} pictures; give one, or one for each.")
        canvas = Canvas(width=width, height=height, samples=people * settings.num_images_per_prompt)
        drawings = torch.stack([to_tensor(resize(each, canvas.size, how="stretch")) for each in poses])
        with self.calling(settings):
            given = {"prompt": (text_states(self, prompts), text_states(self, [""])), "pose": [drawings]}
            return self.draw(reference, given, canvas, settings)

    @torch.no_grad()
    def encode_reference(
        self, reference: Picture | Sequence[Picture], *, size: tuple[int, int] | None = None, busy: Busy = "refuse"
    ) -> ReferenceBank:
        """Write pictures into a bank at their own size, or at the area of a result of `size`; see `write`.

        Args:
            reference: One picture or several of one size.
            size: Width and height of the result that will be drawn; None: the reference as it is.
            busy: As for a call.

        Returns:
            A bank with one row per picture.

        Raises:
            ValueError: If this pipeline has no reference UNet.
        """
        self.check_writer()
        pictures = [read_image(picture) for picture in listed(reference)]
        with turn(changed_parts(self), busy):
            resized = [resize(each, size or each.size, multiple=self.size_multiple) for each in pictures]
            return self.bank_of(self._shown(resized), 0)

    def _shown(self, pictures: Sequence[Any]) -> Shown:
        """Pictures of one size under the empty prompt.

        Raises:
            ValueError: If they are of several sizes.
        """
        sizes = {picture.size for picture in pictures}
        if len(sizes) > 1:
            raise ValueError(f"the references have sizes {sorted(sizes)}; give pictures of one shape.")
        context = text_states(self, [""]).expand(len(pictures), -1, -1)
        return Shown(latents=encode_pixels(self, pixels_of(pictures), keep=True), context=context)

    def _one_reference(self, reference: Any, bank: ReferenceBank | None) -> Any:
        """What was given under either name.

        Raises:
            ValueError: If nothing or both were given.
        """
        if (reference is None) == (bank is None):
            given = "neither" if bank is None else "both"
            raise ValueError(f"{given} of reference and bank was given; give one picture, several, or a written bank.")
        if bank is not None:
            warnings.warn("give the bank as the reference: reference=bank.", FutureWarning, stacklevel=3)
        return bank if reference is None else reference

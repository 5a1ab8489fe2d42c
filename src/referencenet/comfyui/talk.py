"""Nodes of talking portraits: what hears a sound, and the portrait that says it."""

# ComfyUI is no dependency: it imports this
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

from referencenet.builtin.shipped import speech_model as small_speech_model
from referencenet.comfyui.refer import BASE, sampling_inputs
from referencenet.comfyui.values import (
    CATEGORY,
    DRAWN,
    FACE,
    Bank,
    Model,
    Speech,
    draw,
    either,
    input_file,
    picture,
    portrait_of,
    samples,
    sampling,
)  # fmt: skip
from referencenet.media.films import frame_rate
from referencenet.methods.systems import pipelines
from referencenet.pipelines.clips import ClipPipeline
from referencenet.preprocess.face_mesh import CANVAS, only_face
from referencenet.preprocess.face_track import FaceTrack, read_track
from referencenet.preprocess.speech import RATE, num_frames_of, read_speech_model
from referencenet.preprocess.talking_face import TRAINED_RATE, TalkingFace


class LoadSpeech(io.ComfyNode):
    """What hears a sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetLoadSpeech",
            display_name="Load speech model",
            category=CATEGORY,
            description="What Talk hears a sound by: wav2vec2-base-960h for Hallo and EMO, Audio2Lmk's two files for "
            "AniPortrait.",
            inputs=[
                io.String.Input("folder", default="", tooltip="Of wav2vec2-base-960h, or of audio2mesh.pt and "
                                "audio2pose.pt; builtin: the small one of built-in weights."),
            ],
            outputs=[Speech.Output("speech")],
        )  # fmt: skip

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        """Read it."""
        if folder == BASE:
            return io.NodeOutput(small_speech_model())
        path = Path(folder).expanduser()
        if not folder.strip() or not path.is_dir():
            raise ValueError(
                f"there is no folder {folder!r}; give that of wav2vec2-base-960h, or for AniPortrait that of "
                "audio2mesh.pt and audio2pose.pt."
            )
        read = read_speech_model if (path / "config.json").is_file() else TalkingFace.from_published
        return io.NodeOutput(read(path))


class Talk(io.ComfyNode):
    """A portrait that says what is in a sound."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs."""
        return io.Schema(
            node_id="RefnetTalk",
            display_name="Let a portrait talk",
            category=CATEGORY,
            description="Hallo, EMO or AniPortrait: the person of a portrait says what is in a sound, which passes "
            "through.",
            inputs=[
                Model.Input("model"),
                Speech.Input("speech"),
                io.Image.Input("image", optional=True, tooltip="The portrait."),
                Bank.Input("bank", optional=True, tooltip="Instead of the portrait: what was written of it."),
                io.Audio.Input("sound"),
                io.String.Input("face", default="", optional=True, tooltip=FACE),
                io.Float.Input("fps", default=0.0, min=0.0, max=120.0, step=0.01, tooltip="0: 25, AniPortrait 30."),
                io.Int.Input("frames", default=0, min=0, max=100_000, tooltip="0: as many as the sound has."),
                *sampling_inputs(),
            ],
            outputs=[
                io.Image.Output("frames_out", display_name="frames"),
                io.Audio.Output("sound_out", display_name="sound"),
                io.Float.Output("fps_out", display_name="fps"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        speech: Any,
        sound: Any,
        fps: float,
        frames: int,
        image: torch.Tensor | None = None,
        bank: Any = None,
        face: str = "",
        *,
        seed: int,
        **widgets: Any,
    ) -> io.NodeOutput:
        """Draw."""
        if type(model) not in pipelines("talk").values():
            raise ValueError(f"{type(model).__name__} does not talk; load Hallo, EMO or AniPortrait.")
        by_clips = isinstance(model, ClipPipeline)
        if by_clips == isinstance(speech, TalkingFace):
            needed = "wav2vec2-base-960h" if by_clips else "audio2mesh.pt and audio2pose.pt"
            raise ValueError(f"{type(model).__name__} hears by {needed}; give its folder to Load speech model.")
        heard = samples(sound)
        rate = frame_rate(fps) if fps else RATE if by_clips else TRAINED_RATE
        found = num_frames_of(len(heard), rate)
        if frames > found:
            raise ValueError(f"{frames} frames were asked for, but the sound has {found}; ask for fewer.")
        options = sampling(**widgets) | {"seed": seed}
        if by_clips:
            person = either(image, bank, "a portrait", lambda shown: portrait_of(picture(shown), face))
            features = model.hear(heard, speech, rate=rate)
            clips = model.cuts(features.num_frames, frames or found)
            drawn = draw(model, person, features, num_frames=frames or None, rounds=len(clips), **options)
        else:
            person = either(image, bank, "a portrait")
            size = {side: options.setdefault(side, CANVAS) for side in ("width", "height")}
            drawings = speech.to(model.device)(heard, own_face(face), seed=seed, rate=rate, **size)
            drawn = draw(model, person, [*drawings][: frames or None], **options)
        return io.NodeOutput(drawn, sound, float(rate))


def own_face(face: str) -> FaceTrack:
    """The portrait's own face, as AniPortrait moves it.

    Args:
        face: File of a face track of one frame.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If no file is named, or it is of something else.
    """
    if not face.strip() or face == DRAWN:
        raise ValueError("AniPortrait needs face: the file of the portrait's own face track, .npz or .json.")
    track = read_track(path := input_file(face))
    only_face(track.vertices, path)
    return track


NODES = [LoadSpeech, Talk]

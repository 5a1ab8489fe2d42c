"""AniPortrait's Audio2Lmk (Wei et al. 2024, section 3.1): from speech to a face's mesh, and to the head's poses.

Its training was never published. The maintainers told (Zejun-Yang/AniPortrait, issues 71, 102, 114, 131) the loss of
the mesh, the mean absolute error of its offsets from a neutral mesh, and that of wav2vec 2.0 the convolutions alone are
frozen. All else is ours: poses learn from the same loss, each from the true ones before it. Letters: b samples, f
frames, n samples of sound.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Wav2Vec2Model

from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.checkpoints.published import find_files, read_component
from referencenet.checkpoints.written import write_published
from referencenet.inputs import read_json
from referencenet.media.sound import SAMPLE_RATE
from referencenet.networks.audio2face import POSE, MeshFromSpeech, PoseFromSpeech
from referencenet.preprocess.face_geometry import pose_matrices, poses_of, projected
from referencenet.preprocess.face_mesh import draw_face_mesh
from referencenet.preprocess.face_track import FaceTrack, read_track
from referencenet.preprocess.speech import WAV2VEC, moments, num_frames_of, read_speech, read_speech_model
from referencenet.preprocess.talking_face import CHUNK, TRAINED_RATE, between
from referencenet.training.config import RunConfig
from referencenet.training.data.sample import Sample
from referencenet.training.draws import first_weights
from referencenet.training.memory import checkpointed
from referencenet.training.stage import Stage
from referencenet.training.system import Batch, SystemRecipe

SOURCE = "Zejun-Yang/AniPortrait, issues 71, 102, 114, 131: the mesh's loss and what is frozen; all else is ours"
SIZES = "audio2lmk.json"
"""File beside the weights with the networks' sizes, where they are not the released ones."""
OF_ENCODER = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "conv_dim", "conv_kernel",
    "conv_stride", "conv_bias", "feat_extract_norm", "do_stable_layer_norm", "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
)  # fmt: skip
"""Of its configuration: what decides the shapes."""


def frozen_of(network: str) -> tuple[str, ...]:
    """What does not learn: wav2vec 2.0's convolutions, and the mask that it is not trained with here."""
    return rf"{network}\.audio_encoder\.feature_extractor\..*", rf"{network}\.audio_encoder\.masked_spec_embed"


class Audio2Lmk:
    """Both networks, as a run takes a pipeline.

    Args:
        audio2mesh: Moves the mesh.
        audio2pose: Moves the head.
    """

    published = AUDIO2LMK
    reference_unet = None

    def __init__(self, audio2mesh: MeshFromSpeech, audio2pose: PoseFromSpeech) -> None:
        self.audio2mesh, self.audio2pose = audio2mesh.eval(), audio2pose.eval()

    @property
    def components(self) -> dict[str, nn.Module]:
        """By name."""
        return {"audio2mesh": self.audio2mesh, "audio2pose": self.audio2pose}

    @property
    def _execution_device(self) -> torch.device:
        return self.audio2mesh.in_fn.weight.device

    def to(self, *args: Any, **kwargs: Any) -> Audio2Lmk:
        """As of modules."""
        for network in self.components.values():
            network.to(*args, **kwargs)
        return self

    @classmethod
    def from_published(
        cls, folder: str | Path, *, base: str | Path | None = None, dtype: torch.dtype | None = None
    ) -> Audio2Lmk:  # fmt: skip
        """Networks to go on with, `audio2mesh.pt` and `audio2pose.pt`; or those that begin with wav2vec 2.0.

        Args:
            folder: Of the files, or of a wav2vec 2.0 model such as facebook/wav2vec2-base-960h.
            base: Folder of such a model, where it is another.
            dtype: Of the weights.

        Raises:
            FileNotFoundError: If there is neither.
            CheckpointError: If a tensor does not fit.
        """
        folder = Path(folder)
        if AUDIO2LMK.is_in(folder):
            sizes = folder / SIZES
            config = read_json(sizes, "the networks' sizes") if sizes.is_file() else None
            paths = find_files(AUDIO2LMK, folder)
            networks: Any = {name: read_component(AUDIO2LMK, name, paths, config) for name in AUDIO2LMK.components}
        else:
            networks = begun(read_speech_model(cls._speech_in(folder, base)))
        return cls(**networks).to(dtype=dtype or torch.float32)

    @staticmethod
    def _speech_in(folder: Path, base: str | Path | None) -> Path:
        """Where the speech model is."""
        for place in (Path(base) if base else folder, folder / (WAV2VEC.folder or "")):
            if (place / "config.json").is_file():
                return place
        raise FileNotFoundError(
            f"{folder} has neither audio2mesh.pt and audio2pose.pt ({AUDIO2LMK.source}) nor a wav2vec 2.0 model "
            f"({WAV2VEC.source}); give the folder of either."
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write both networks under the released names, and their sizes."""
        folder = Path(folder)
        write_published(self.components, AUDIO2LMK, folder)
        (folder / SIZES).write_text(json.dumps(self.sizes(), indent=2) + "\n", encoding="utf-8")

    def sizes(self) -> dict[str, Any]:
        """Of the networks, as `AUDIO2LMK` builds them."""
        layers = self.audio2pose.transformer_decoder.layers
        first: Any = layers[0]
        return {
            "wav2vec2": sizes_of(self.audio2mesh.audio_encoder),
            "latent_dim": self.audio2mesh.in_fn.out_features, "out_dim": self.audio2mesh.out_fn.out_features,
            "n_head": first.self_attn.num_heads, "layers": len(layers), "feedforward": first.linear1.out_features,
            "identities": self.audio2pose.id_embed.num_embeddings,
        }  # fmt: skip


def sizes_of(encoder: Wav2Vec2Model) -> dict[str, Any]:
    """What of a speech model's configuration decides its shapes."""
    return {name: getattr(encoder.config, name) for name in OF_ENCODER}


def begun(speech: Wav2Vec2Model) -> dict[str, Any]:
    """Both networks with a speech model's weights, of which each has its own; what is new comes from a seed."""
    config = {**AUDIO2LMK.base_config, "wav2vec2": sizes_of(speech)}
    with first_weights(0):
        networks: Any = {name: build(config) for name, build in AUDIO2LMK.build.items()}
    for network in networks.values():
        network.audio_encoder.load_state_dict(speech.state_dict(), strict=False)  # but for the mask
    return networks


class Audio2LmkRecipe(SystemRecipe):
    """`mesh`: from speech to offsets of the face's mesh; `pose`: from speech to the head's poses; clips of 5 s."""

    system, pipeline, layout = "audio2lmk", Audio2Lmk, "hdtf"
    has_built_in = False
    stages = {
        network.removeprefix("audio2"): Stage(
            train=(rf"{network}\..*",), freeze=frozen_of(network), frames=round(CHUNK * TRAINED_RATE),
            needs=("audio", "track"), source=SOURCE,
        )
        for network in ("audio2mesh", "audio2pose")
    }  # fmt: skip

    def __init__(self, pipe: Audio2Lmk, stage: str, config: RunConfig) -> None:
        if config.predicts:
            raise ValueError(f"predicts is {config.predicts!r}, but {self.system} has no denoiser; leave it out.")
        self.part = f"audio2{stage}"
        super().__init__(pipe, stage, config)

    def _prepared(self, pipe: Any, config: RunConfig) -> dict[str, nn.Module]:
        """Choose what learns; nothing is dropped at random, which would not be the same again."""
        chosen = super()._prepared(pipe, config)
        for network in pipe.components.values():
            network.eval()
        return chosen

    @property
    def network(self) -> Any:
        """What the stage trains."""
        return self.pipe.components[self.part]

    @property
    def has_poses(self) -> bool:
        """Whether the stage is that of the head's poses."""
        return self.part == "audio2pose"

    def read(self, sample: Sample, random: torch.Generator) -> dict[str, Tensor | str]:
        """A clip of the sound, and what the face does in it; a shorter film is silent behind its end."""
        assert sample.track is not None
        track = read_track(sample.track)
        sound = read_speech(str(sample.audio), self.network.audio_encoder)
        last = float((len(track.vertices) - 1) / track.rate * TRAINED_RATE)
        count = min(num_frames_of(len(sound), TRAINED_RATE), int(last) + 1)
        start = int(torch.randint(max(1, count - self.frames + 1), (1,), generator=random))
        places = np.minimum(np.arange(start, start + self.frames), count - 1)
        hop = SAMPLE_RATE / float(TRAINED_RATE)
        mean, deviation = moments(sound)
        part = (sound[round(start * hop) :][: self.num_samples] - np.float32(mean)) / np.float32(deviation)
        told = self._poses(track, places) if self.has_poses else self._offsets(track, places)
        return {
            "sound": F.pad(torch.from_numpy(part).float(), (0, self.num_samples - len(part))),
            "target": torch.from_numpy(told).float(),
            "counted": (torch.arange(start, start + self.frames) < count).float(),
            "identity": torch.tensor(zlib.crc32(sample.name.encode()) % self.pipe.audio2pose.id_embed.num_embeddings),
        }

    @property
    def num_samples(self) -> int:
        """Of a clip's sound."""
        return round(self.frames * SAMPLE_RATE / TRAINED_RATE)

    @staticmethod
    def _offsets(track: FaceTrack, places: np.ndarray) -> np.ndarray:
        """How far vertices are from the most neutral frame's, (f, 468, 3), at places of 30 frames a second."""
        return between(track.vertices, places * float(track.rate / TRAINED_RATE)) - track.vertices[track.neutral]

    @staticmethod
    def _poses(track: FaceTrack, places: np.ndarray) -> np.ndarray:
        """Of the head, (f, 6), relative to the clip's first frame."""
        inside = places * float(track.rate / TRAINED_RATE)
        first = track.matrices[round(float(inside[0]))]
        return between(poses_of(np.linalg.inv(first) @ track.matrices), inside)

    @contextmanager
    def losses(self, batch: Batch) -> Generator[dict[str, Tensor]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The mean absolute error of what is heard, over the frames that there are; all samples count alike."""
        told = {name: tensor.to(self.device) for name, tensor in batch.tensors.items()}
        with ExitStack() as stack:
            if self.config.checkpointing:
                stack.enter_context(checkpointed(self.to_checkpoint()))
            errors = (self.heard(told) - told["target"]).abs().flatten(2).mean(2)  # (b, f)
            yield {"loss": ((errors * told["counted"]).sum(1) / told["counted"].sum(1)).mean()}

    def heard(self, told: Mapping[str, Tensor]) -> Tensor:
        """Offsets (b, f, 468, 3), or poses (b, f, 6), of clips of sound."""
        encoder = self.network.audio_encoder
        with torch.no_grad():
            features = encoder.feature_extractor(told["sound"].to(encoder.dtype))
            features = F.interpolate(features, size=told["target"].shape[1], mode="linear", align_corners=True)
        hidden, _ = encoder.feature_projection(features.transpose(1, 2))
        states = encoder.encoder(hidden).last_hidden_state
        if self.has_poses:
            return self.network.taught(states, told["identity"], told["target"])
        return self.network(states)

    def example(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int], frames: int) -> dict[str, Any]:  # noqa: ARG002 - as its relatives
        """Of the shapes that the networks' configurations say."""
        shape = (POSE,) if self.has_poses else (self.pipe.audio2mesh.out_fn.out_features // 3, 3)
        sound, target = make(samples, self.num_samples), make(samples, frames, *shape)
        counted = torch.ones(samples, frames, device=sound.device)
        identity = torch.zeros(samples, dtype=torch.long, device=sound.device)
        return {"sound": sound, "target": target, "counted": counted, "identity": identity}

    def exampled(self, make: Callable[..., Tensor], samples: int, size: tuple[int, int]) -> Any:
        """A batch of the right shapes."""
        return Batch(
            step=0, places=tuple(range(samples)), tensors=self.example(make, samples, size, self.frames), texts={}
        )

    def to_checkpoint(self) -> Iterator[nn.Module]:
        """What learns, of which wav2vec's layers are computed again."""
        yield self.network

    @property
    def factor(self) -> int:
        """There are no latents."""
        return 1

    # --- validation ---------------------------------------------------------------------------------------------------

    def scores(self) -> dict[str, float]:
        """The loss of held-out samples, and of the same with silence in the place of the sound."""
        found: dict[str, list[float]] = {"validation": [], "validation_cut": []}
        for batch in self.held_out:
            silent = {**batch.tensors, "sound": torch.zeros_like(batch.tensors["sound"])}
            for name, tensors in (("validation", batch.tensors), ("validation_cut", silent)):
                with self.losses(Batch(step=0, places=batch.places, tensors=tensors, texts={})) as losses:
                    found[name].append(float(losses["loss"]))
        return {name: float(np.mean(values)) for name, values in found.items() if values}

    @contextmanager
    def evaluating(self) -> Generator[None]:
        """There is nothing to change: networks learn in evaluation mode."""
        yield

    @torch.no_grad()
    def draw(self, sample: Sample, generator: torch.Generator) -> list[Image.Image]:
        """The face as it is before the clip, as it is heard, and in truth, in the clip's most moved frame."""
        assert sample.track is not None
        track, read = read_track(sample.track), self.read(sample, generator)
        told: dict[str, Any] = {name: value[None].to(self.device) for name, value in read.items()}  # pyright: ignore
        truth, heard = told["target"][0].float(), self.heard(told)[0].float()
        moved = int((truth - truth[0]).abs().flatten(1).sum(1).argmax())
        return [self._drawn(track, each.cpu().numpy()) for each in (truth[0], heard[moved], truth[moved])]

    def _drawn(self, track: FaceTrack, told: np.ndarray) -> Image.Image:
        """A face of offsets, or of a pose."""
        vertices, matrix = track.vertices[track.neutral].astype(np.float64), track.matrices[track.neutral]
        if self.has_poses:
            matrix = matrix @ pose_matrices(told)
        else:
            vertices = vertices + told
        pixels = projected(vertices[None], matrix[None], track.width, track.height)[0]
        return Image.fromarray(draw_face_mesh(pixels / np.array([track.width, track.height]), *self.size))


RECIPE = Audio2LmkRecipe

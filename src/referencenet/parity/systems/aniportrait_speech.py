"""Runs the golden cases of AniPortrait's Audio2Lmk: from speech to a mesh, and to poses of the head."""

from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from referencenet.checkpoints.audio2lmk import AUDIO2LMK, AUDIO2LMK_KEYS
from referencenet.networks.wav2vec import speech_states
from referencenet.parity.cases import Case
from referencenet.parity.record import Produced, Runner
from referencenet.parity.system import config_of


@torch.no_grad()
def run_audio2mesh(case: Case) -> Produced:
    """Offsets of the mesh, and what the encoder gives on the way to them."""
    network, states = heard(case, "audio2mesh")
    features = network.audio_encoder.feature_extractor(case.input("audio"))
    resampled = functional.interpolate(features, size=states[0].shape[1], mode="linear", align_corners=True)
    outputs = {
        "cnn_features": features.transpose(1, 2),
        "resampled": resampled.transpose(1, 2),
        "hidden_0": states[0],
        "last_hidden_state": states[-1],
        "offsets": network(states[-1]).flatten(2),
        "offsets_mean_features": network(torch.stack(states).mean(dim=0)).flatten(2),
    }
    return Produced(outputs, {})


@torch.no_grad()
def run_audio2pose(case: Case) -> Produced:
    """Poses of the head."""
    network, states = heard(case, "audio2pose")
    poses = network(states[-1], case.scalar("id_seed")[0])
    return Produced({"last_hidden_state": states[-1], "memory": network.in_fn(states[-1]), "poses": poses}, {})


def heard(case: Case, component: str) -> tuple[Any, list[Tensor]]:
    """A network with the case's weights, and its encoder's states of the sound, which is given as the encoder takes it.

    Weights go through the key map that released files are read with.
    """
    network = AUDIO2LMK.build[component](config_of(case, component)).eval()
    case.load(network, component, AUDIO2LMK_KEYS)
    audio = case.input("audio")
    frames = case.scalars.get("seq_len") or ceil(audio.shape[-1] / case.scalar("sampling_rate") * case.scalar("fps"))
    return network, speech_states(network.audio_encoder, audio, frames)


SPEECH_RUNNERS: Mapping[str, Runner] = {"audio2mesh": run_audio2mesh, "audio2pose": run_audio2pose}

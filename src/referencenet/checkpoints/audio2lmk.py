"""AniPortrait's released networks from speech to a face: `audio2mesh.pt` and `audio2pose.pt`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from transformers import Wav2Vec2Config, Wav2Vec2Model

from referencenet.checkpoints.keymap import KeyMap
from referencenet.checkpoints.published import PublishedFile, PublishedSet
from referencenet.networks.audio2face import MeshFromSpeech, PoseFromSpeech

AUDIO2LMK_KEYS = KeyMap(
    renames=(
        (r"pos_conv_embed\.conv\.weight_g$", "pos_conv_embed.conv.parametrizations.weight.original0"),
        (r"pos_conv_embed\.conv\.weight_v$", "pos_conv_embed.conv.parametrizations.weight.original1"),
    ),
    ignored={r"PPE\.pe": "the table of positions, which is computed"},
)
"""Weight norm as torch wrote it before 2.1; newer names are ours."""


def _encoder(config: Mapping[str, Any]) -> Wav2Vec2Model:
    return Wav2Vec2Model(Wav2Vec2Config(**config["wav2vec2"]))


def build_mesh(config: Mapping[str, Any]) -> MeshFromSpeech:
    """The network of the mesh, of `wav2vec2`, `latent_dim` and perhaps `out_dim`, three for each point."""
    return MeshFromSpeech(_encoder(config), config["latent_dim"], config.get("out_dim", 1404) // 3)


def build_pose(config: Mapping[str, Any]) -> PoseFromSpeech:
    """The network of the head's poses, of `wav2vec2`, `latent_dim` and perhaps what its decoder consists of."""
    names = {"n_head": "heads", "layers": "layers", "feedforward": "feedforward", "identities": "identities"}
    own = {ours: config[name] for name, ours in names.items() if name in config}
    return PoseFromSpeech(_encoder(config), config["latent_dim"], **own)


AUDIO2LMK = PublishedSet(
    name="aniportrait.audio2lmk",
    source="huggingface.co/ZJYang/AniPortrait",
    licence="Apache-2.0 by its tag",
    paper="2403.17694",
    files=(
        PublishedFile(
            path="audio2mesh.pt", component="audio2mesh", keymap=AUDIO2LMK_KEYS, manifest="aniportrait-audio2mesh"
        ),
        PublishedFile(
            path="audio2pose.pt", component="audio2pose", keymap=AUDIO2LMK_KEYS, manifest="aniportrait-audio2pose"
        ),
    ),
    build={"audio2mesh": build_mesh, "audio2pose": build_pose},
    base_config=MappingProxyType({"wav2vec2": {}, "latent_dim": 512}),  # wav2vec2-base is transformers' default
    tiny_config=MappingProxyType({
        "wav2vec2": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "conv_dim": (8,) * 7,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
        },
        "latent_dim": 16,
        "layers": 2,
        "feedforward": 16,
    }),
)  # fmt: skip
"""From speech to vertices of a face mesh, and to poses of the head."""

"""From speech to a face: frames decoded once give the poses of the published decoding, prefix by prefix."""

from __future__ import annotations

import pytest
import torch

from referencenet.checkpoints.audio2lmk import AUDIO2LMK
from referencenet.methods.tiny import filled
from referencenet.networks.audio2face import MeshFromSpeech, PoseFromSpeech, positions, slopes
from sounds import tiny_wav2vec
from tolerances import relative_error


def pose_network(heads: int = 4) -> PoseFromSpeech:
    return filled(PoseFromSpeech(tiny_wav2vec(), 24, heads, layers=3, feedforward=20, identities=5), 1)


@torch.no_grad()
def decoded_by_prefix(network: PoseFromSpeech, states: torch.Tensor, identity: int) -> torch.Tensor:
    """As the specification writes it: torch's decoder over the whole prefix, for every frame."""
    memory, num_frames = network.in_fn(states), states.shape[1]
    heads = network.transformer_decoder.layers[0].self_attn.num_heads  # pyright: ignore
    tokens = network.pose_map(torch.zeros(1, 1, 6))
    i = torch.arange(num_frames)
    later = i[None, :] > i[:, None]
    causal = (-slopes(heads)[:, None, None] * (i[:, None] - i[None, :])).masked_fill(later, float("-inf"))
    for n in range(1, num_frames + 1):
        given = tokens + positions(n, 24) + network.id_embed.weight[identity]
        out = network.transformer_decoder(
            given, memory, tgt_mask=causal[:, :n, :n], memory_mask=~torch.eye(num_frames, dtype=torch.bool)[:n]
        )
        poses = network.pose_map_r(out)
        tokens = torch.cat([tokens, network.pose_map(poses[:, -1:])], dim=1)
    return poses  # pyright: ignore[reportPossiblyUnboundVariable]


@pytest.mark.parametrize("num_frames", [1, 2, 13])
@pytest.mark.parametrize("heads", [2, 8])
def test_poses_are_those_of_the_whole_prefix(heads: int, num_frames: int) -> None:
    network = pose_network(heads)
    states = torch.randn(1, num_frames, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network(states, 3)
        assert relative_error(found, decoded_by_prefix(network, states, 3)) < 1e-5
        assert relative_error(network(states, 4), found) > 1e-3


def test_each_frame_is_decoded_once() -> None:
    network = pose_network()
    rows: list[int] = []
    for layer in network.transformer_decoder.layers:
        layer.linear1.register_forward_hook(lambda _m, args, _o: rows.append(args[0].shape[1]))  # pyright: ignore
    with torch.no_grad():
        network(torch.randn(1, 7, 32), 0)
    assert rows == [1] * 7 * 3


def test_frames_that_are_taught_at_once_are_those_that_follow_each_other() -> None:
    network = pose_network()
    states = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        followed = torch.cat([network(states[i : i + 1], identity) for i, identity in enumerate((3, 1))])
        taught = network.taught(states, torch.tensor([3, 1]), followed)
    assert relative_error(taught, followed) < 1e-5
    other = followed.clone()
    other[:, 4] += 1
    with torch.no_grad():
        changed = network.taught(states, torch.tensor([3, 1]), other) != taught
    assert not changed[:, :5].any()
    assert changed[:, 5:].any()


def test_slopes_are_those_published() -> None:
    assert slopes(8).tolist() == [2.0**-i for i in range(1, 9)]


def test_unknown_identities_and_too_many_frames_are_told() -> None:
    network = pose_network()
    for identity, num_frames in ((5, 2), (-1, 2), (0, 601)):
        with pytest.raises(ValueError, match=f"identity is {identity}, of {num_frames} frames; expected 0 to 4, and"):
            network(torch.zeros(1, num_frames, 32), identity)


def test_a_mesh_has_three_numbers_for_each_point() -> None:
    network = filled(MeshFromSpeech(tiny_wav2vec(), 24, 7), 0)
    states = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    offsets = network(states)
    assert offsets.shape == (1, 5, 7, 3)
    assert torch.allclose(network(states[:, 2:3])[0, 0], offsets[0, 2], atol=1e-5)  # frame by frame


def test_tiny_networks_are_of_the_released_kind() -> None:
    for name in AUDIO2LMK.components:
        tiny = AUDIO2LMK.build[name](AUDIO2LMK.tiny_config).state_dict()
        with torch.device("meta"):
            full = AUDIO2LMK.build[name](AUDIO2LMK.base_config).state_dict()
        assert tiny.keys() <= full.keys()

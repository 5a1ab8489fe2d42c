"""AniPortrait as a user calls it: drawings in, films out, and what is its own."""

from typing import Any

import numpy as np
import pytest
import torch

from films import generator, picture
from referencenet.media.images import to_tensor
from referencenet.methods.aniportrait import AniPortraitPipeline
from referencenet.parity.verify import relative_error
from referencenet.preprocess.face_mesh import FaceMeshFilm
from referencenet.sampling.stream import frame_noise
from referencenet.sampling.windows import Windows
from tiny import tiny_pipeline

SIZE = 64


def faces(frames: int) -> FaceMeshFilm:
    landmarks = np.random.default_rng(0).random((frames, 468, 2))
    return FaceMeshFilm(landmarks, width=SIZE, height=SIZE)


@pytest.fixture(scope="module")
def tiny() -> AniPortraitPipeline:
    pipe = tiny_pipeline("aniportrait")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def film(pipe: Any, drawings: Any, **options: Any) -> Any:
    options = {"num_inference_steps": 2, "output_type": "latent", "generator": generator()} | options
    return pipe(picture(0), drawings, **options).frames


def other(pipe: AniPortraitPipeline, **settings: Any) -> AniPortraitPipeline:
    changed = AniPortraitPipeline(**pipe.components, **settings)
    changed.set_progress_bar_config(disable=True)
    return changed


def test_features_are_made_once_per_window(tiny: AniPortraitPipeline) -> None:
    seen: list[int] = []
    handle = tiny.pose_guider.register_forward_hook(lambda _m, args, _o: seen.append(len(args[0])))
    try:
        film(tiny, faces(6), num_inference_steps=3, windows=Windows(size=4, overlap=2))
    finally:
        handle.remove()
    assert seen == [4, 4]


def test_a_stream_is_the_film(tiny: AniPortraitPipeline) -> None:
    drawings = torch.stack([to_tensor(frame) for frame in faces(6)])
    options: dict[str, Any] = {"num_inference_steps": 2, "windows": Windows(size=4, overlap=2)}
    size: dict[str, Any] = {"width": SIZE, "height": SIZE, "num_frames": 6}
    pieces = tiny.stream(picture(0), lambda start, stop: [drawings[start:stop]], seed=1, **size, **options)
    streamed = torch.cat([frames for frames, _ in pieces])
    noise = frame_noise(1, range(6), (1, 4, SIZE // 8, SIZE // 8))
    whole = film(tiny, drawings, latents=noise, output_type="pt", **options)[0]
    assert torch.allclose(streamed, whole, atol=1e-5)


def test_by_running_statistics_a_frame_does_not_depend_on_its_neighbours(tiny: AniPortraitPipeline) -> None:
    drawings = torch.rand(3, 3, SIZE, SIZE)
    changed = drawings.clone()
    changed[2] = torch.rand(3, SIZE, SIZE)

    def moved(pipe: AniPortraitPipeline) -> bool:
        with torch.no_grad():
            return not torch.equal(pipe.guide(drawings)[2][0], pipe.guide(changed)[2][0])

    assert moved(tiny)
    assert not moved(other(tiny, published_norm=False))


def test_guiding_leaves_the_running_statistics_alone(tiny: AniPortraitPipeline) -> None:
    before = {name: value.clone() for name, value in tiny.pose_guider.state_dict().items()}
    film(tiny, faces(2))
    assert all(torch.equal(value, before[name]) for name, value in tiny.pose_guider.state_dict().items())


def test_the_official_range_is_an_option_that_is_saved(tiny: AniPortraitPipeline, tmp_path: Any) -> None:
    official = other(tiny, pose_range="official")
    assert not torch.equal(film(official, faces(2)), film(tiny, faces(2)))
    official.save_pretrained(tmp_path)
    again = AniPortraitPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert again.config.pose_range == "official"
    assert relative_error(film(again, faces(2)), film(official, faces(2))) < 1e-4  # mapped weights round otherwise
    with pytest.raises(ValueError, match="pose_range is 'raw'; expected one of"):
        other(tiny, pose_range="raw")


def test_every_third_frame_is_drawn_and_the_others_are_inserted(tiny: AniPortraitPipeline) -> None:
    drawn = film(tiny, list(faces(8))[::3], output_type="pt")[0]
    whole = film(tiny, faces(8), every=3, interpolator=lambda a, b, t: torch.lerp(a, b, t), output_type="pt")[0]
    assert torch.equal(whole[::3], drawn)
    assert torch.allclose(whole[1], torch.lerp(drawn[0], drawn[1], 1 / 3), atol=1e-6)
    with pytest.raises(ValueError, match="every=3 .* no interpolator"):
        film(tiny, faces(8), every=3, output_type="pt")

"""Data sets as paperdoll writes them; frames at random places; what is missing is named; batches by their number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from referencenet import inputs
from referencenet.media.films import Film
from referencenet.media.images import read_image
from referencenet.paperdoll.cameras import CAMERAS
from referencenet.paperdoll.layouts import LAYOUTS as WRITERS
from referencenet.paperdoll.layouts import write_dataset
from referencenet.preprocess.face_mesh import draw_face_mesh
from referencenet.training.config import read_config
from referencenet.training.data.augment import Jitter, cut, draw_crop, moved
from referencenet.training.data.frames import draw_clip, draw_one, draw_pair, num_frames, read_frames
from referencenet.training.data.layouts.index import LAYOUTS, open_dataset
from referencenet.training.data.sample import Sample, whole_ones
from referencenet.training.data.sampler import StepSampler
from referencenet.training.recipes.index import configuration
from tiny import picture
from trainings import WRITTEN


def test_every_layout_is_written_and_read() -> None:
    assert WRITTEN.keys() == LAYOUTS.keys()
    assert {name for name, *_ in WRITTEN.values()} | {"stable-garment"} == WRITERS.keys()


@pytest.mark.parametrize("layout", WRITTEN)
def test_what_paperdoll_writes_is_read_back(layout: str, roots: dict[str, Path]) -> None:
    _, _, counts, needs = WRITTEN[layout]
    found = {split: open_dataset(roots[layout], layout, split, needs) for split in counts}
    assert {split: len(each.samples) for split, each in found.items()} == counts
    assert not any(each.left_out for each in found.values())
    assert len({sample.name for each in found.values() for sample in each.samples}) == sum(counts.values())


def test_heads_come_with_what_is_heard_and_how_fast_they_turn(roots: dict[str, Path]) -> None:
    (sample,) = open_dataset(roots["hdtf"], "hdtf", "train").samples
    assert sample.target is not None
    assert num_frames(sample.target) == 50
    speech, speeds, embedding = (np.load(path) for path in (sample.speech, sample.speeds, sample.embedding))  # pyright: ignore
    assert speech.shape == (50, 2, 4)
    assert np.allclose(speech, 0.32)
    assert speeds.shape == (50,)
    assert 0 < speeds.mean() < 5
    first = np.asarray(read_frames(sample.target, [0])[0])
    assert np.allclose(embedding, np.resize(first / 255, 512))


def test_landmarks_lie_on_the_faces_of_their_frames(roots: dict[str, Path]) -> None:
    (sample,) = open_dataset(roots["aniportrait"], "aniportrait", "train").samples
    assert len(sample.frames) == len(sample.landmarks) == 50
    points = np.load(sample.landmarks[7])
    assert points.shape == (478, 3)
    drawn = draw_face_mesh(points, 64, 64)
    assert drawn.any()
    assert (points[[50, 205]] == -1).all()  # a drawn face has no cheekbones
    mouth = points[[61, 291, 0, 17]]  # right, left, upper, lower
    assert mouth[0, 0] < mouth[2, 0] < mouth[1, 0]
    assert mouth[2, 1] < mouth[3, 1]
    opening = [np.ptp(np.load(path)[[13, 14], 1]) for path in sample.landmarks]
    frames = np.stack([np.asarray(read_image(path)).astype(int) for path in sample.frames])
    wide, shut = int(np.argmax(opening)), int(np.argmin(opening))
    x, y = (np.load(sample.landmarks[wide])[[13, 14], :2].mean(axis=0) * 64).astype(int)
    assert np.abs(frames[wide, y, x] - frames[shut, y - 4, x]).sum() > 100  # inside of the mouth, and skin


def test_people_are_seen_by_the_cameras_that_see_the_other_head(roots: dict[str, Path]) -> None:
    for sample in open_dataset(roots["views"], "views", "train").samples:
        assert [path.name for path in sample.views] == [path.name for path in sample.cameras]
        assert len(sample.views) == len(CAMERAS) >= 8
        views = np.stack([np.asarray(read_image(path)).astype(int) for path in sample.views])
        assert all((a != b).any() for i, a in enumerate(views) for b in views[:i])


def test_garments_are_worn_by_others_too_where_stable_garment_learns(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "stable", 2, "stable-garment", 64, 3)
    found = open_dataset(root, "viton_hd", "train", ("target", "garment"))
    assert [sample.name for sample in found.samples] == [
        f"0000{i}_00{more}.jpg" for i in range(2) for more in ("", "@@1", "@@2")
    ]
    first, other, *_ = found.samples
    assert first.garment == other.garment
    assert first.garment_caption == other.garment_caption
    assert first.caption != other.caption
    assert first.garment_caption is not None
    assert first.garment_caption in first.caption  # pyright: ignore[reportOperatorIssue]
    whole = open_dataset(root, "viton_hd", "train", ("target", "garment", "mask", "dense"))
    assert [sample.name for sample in whole.samples] == ["00000_00.jpg", "00001_00.jpg"]
    assert len(whole.left_out) == 4


def test_flat_pictures_of_a_character_are_each_others_references(roots: dict[str, Path]) -> None:
    samples = open_dataset(roots["flat"], "flat", "train").samples
    for sample in samples:
        assert sample.target not in sample.references
        assert len(sample.references) <= 1


def test_samples_that_lack_something_are_named_and_left_out(roots: dict[str, Path], tmp_path: Path) -> None:
    rows = json.loads((roots["ubc"] / "fashion_train_meta.json").read_text())
    for folder in ("train", "train_dwpose"):
        (tmp_path / folder).symlink_to(roots["ubc"] / folder)
    rows[1]["kps_path"] = "train_dwpose/none.mp4"
    (tmp_path / "fashion_train_meta.json").write_text(json.dumps(rows))
    found = open_dataset(tmp_path, "ubc", "train", ("target", "pose"))
    assert len(found.samples) == len(rows) - 1
    assert found.left_out == {rows[1]["video_path"]: ["pose (no such file)"]}
    assert "1 left out, as train/00001.mp4, which lacks pose (no such file)" in str(found)
    with pytest.raises(ValueError, match="all 2 lack something, as train/00000.mp4: audio; the stage needs audio"):
        open_dataset(tmp_path, "ubc", "train", ("audio",))


def test_folders_of_another_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no data set"):
        open_dataset(tmp_path / "none", "ubc", "train")
    for layout in WRITTEN:
        with pytest.raises(FileNotFoundError, match="is no .* data set: it has no"):
            open_dataset(tmp_path, layout, "train")
    with pytest.raises(ValueError, match="no layout 'ubs'; did you mean 'ubc'"):
        open_dataset(tmp_path, "ubs", "train")


def test_garments_are_described_by_their_tags(roots: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(roots["viton_hd"], tmp_path, dirs_exist_ok=True)
    name = (tmp_path / "train_pairs.txt").read_text().split()[0]
    tags = [("item", "T-shirt"), ("neckLine", "round neck"), ("sleeveLength", "short sleeve"), ("looks", None)]
    row = {"file_name": name, "tag_info": [{"tag_name": key, "tag_category": value} for key, value in tags]}
    (tmp_path / "train" / "vitonhd_train_tagged.json").write_text(json.dumps({"data": [row]}))
    samples = open_dataset(tmp_path, "viton_hd", "train").samples
    assert samples[0].garment_caption == "short sleeve round neck T-shirt "
    assert samples[1].garment_caption is None


def test_parts_have_labels_and_masks(tmp_path: Path) -> None:
    for name in ("who.png", "face.png", "face_mask.png", "dense.png"):
        picture(0).save(tmp_path / name)
    row = {
        "target": "who.png", "appearance": {"face": "face.png"}, "mask": {"face": "face_mask.png"},
        "structure": {"densepose": "dense.png"}, "caption": "a knight",
    }  # fmt: skip
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    (sample,) = open_dataset(tmp_path, "parts2whole", "train", ("target", "parts", "part_masks", "dense")).samples
    assert sample.parts == {"face": tmp_path / "face.png"}
    assert sample.caption == "a knight"


LISTS = {
    "flat": ("train/metadata.jsonl", {"file_name": "0.png"}),
    "parts2whole": ("train.jsonl", {"target": "0.png", "appearance": {"face": "1.png"}}),
    "ubc": ("fashion_train_meta.json", {"video_path": "0.mp4", "kps_path": "1.mp4"}),
}


@pytest.mark.parametrize(
    ("layout", "row", "message"),
    [
        ("flat", ["0.png"], "is a list; expected an object with file_name"),
        ("flat", {}, "has no 'file_name'; expected file_name"),
        ("flat", {"file_name": 1}, "has 'file_name' = '1'; expected words"),
        ("flat", {"text": {"a": 1}}, "has 'text' = .*; expected words"),
        ("flat", {"face_box": "all"}, "has 'face_box' = 'all'; expected a list"),
        ("flat", {"face_box": [0, 0, 1]}, r"metadata.jsonl has the face at \[0, 0, 1\]; expected left, top"),
        ("flat", {"face_box": [0, 0, float("nan"), 1]}, "has the face at"),
        ("flat", {"face_box": ["a", "b", "c", "d"]}, "has the face at"),
        ("parts2whole", {"target": None}, "has no 'target'; expected target, appearance"),
        ("parts2whole", {"appearance": ["face.png"]}, "has 'appearance' = .*; expected names with words"),
        ("parts2whole", {"appearance": {"face": 3}}, "has 'appearance' = .*; expected names with words"),
        ("parts2whole", {"mask": "face.png"}, "has 'mask' = 'face.png'; expected names with words"),
        ("ubc", {"kps_path": None}, "has no 'kps_path'; expected video_path, kps_path"),
        ("ubc", "0.mp4", "is a str; expected an object"),
    ],
)
def test_entries_of_another_kind_are_refused_by_their_place(
    layout: str, row: Any, message: str, tmp_path: Path
) -> None:
    name, good = LISTS[layout]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    wrong = good | row if row and isinstance(row, dict) else row
    rows = [json.dumps(each) for each in (good, wrong)]
    is_list = name.endswith(".json")
    (tmp_path / name).write_text(f"[{', '.join(rows)}]" if is_list else "\n".join(rows))
    place = "" if "the face at" in message else f"{'entry' if is_list else 'line'} 2 of .*"
    with pytest.raises(ValueError, match=place + message):
        open_dataset(tmp_path, layout, "train")


@pytest.mark.parametrize("layout", ["flat", "parts2whole", "hdtf", "viton_hd"])
def test_lists_are_read_with_bounds(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = {"hdtf": "train_list.txt", "viton_hd": "train_pairs.txt"}.get(layout) or LISTS[layout][0]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    for content, message in (
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\xff\xfe0", r"is not text in UTF-8 \(byte 0\)"),
        (b" " * 100, "has 100 bytes; text of at most 99 is read"),
    ):
        (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(inputs, "MAX_JSON", 99)
        with pytest.raises(ValueError, match=message):
            open_dataset(tmp_path, layout, "train")


def test_other_lists_of_garments_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train_pairs.txt").write_text("person garment\n")
    with pytest.raises(ValueError, match=r"has 'person garment'; expected names of pictures"):
        open_dataset(tmp_path, "viton_hd", "train")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "vitonhd_train_tagged.json").write_text('{"data": [{"file_name": "0.jpg"}]}')
    with pytest.raises(ValueError, match="has a garment without file_name and tag_info"):
        open_dataset(tmp_path, "viton_hd", "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds a list; expected a dict"),
        ('{"a": {"clips": []}}', "a has no clip_data_list of frame_path_list and lmks_list"),
        (
            '{"a": {"clip_data_list": [{"frame_path_list": ["0.png"], "lmks_list": []}]}}',
            "has 1 frames and 0 landmarks",
        ),
    ],
)
def test_lists_of_frames_that_do_not_fit_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path, "aniportrait", "train")


@pytest.mark.parametrize("content", ["{}", '{"frames": [{}]}', '{"frames": [{"place": [0.5, 0.5, 0.2, 0.9]}]}'])
def test_faces_that_are_nowhere_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "train" / "ann").mkdir(parents=True)
    picture(0).save(tmp_path / "train" / "ann" / "0.png")
    (tmp_path / "train" / "ann" / "0.json").write_text(content)
    with pytest.raises(ValueError, match="does not say where a face is|has the face at"):
        open_dataset(tmp_path, "identities", "train")


def test_pictures_without_a_face_are_nobodys_reference(tmp_path: Path) -> None:
    (tmp_path / "train" / "ann").mkdir(parents=True)
    for name in "012":
        picture(0).save(tmp_path / "train" / "ann" / f"{name}.png")
    boxes: dict[str, list[dict[str, list[float]]]] = {"0": [{"place": [0, 0, 0.5, 1]}], "1": []}
    for name, frames in boxes.items():
        (tmp_path / "train" / "ann" / f"{name}.json").write_text(json.dumps({"frames": frames}))
    samples = open_dataset(tmp_path, "identities", "train").samples
    assert [[path.stem for path in sample.references] for sample in samples] == [["1", "2"], ["0"], ["0"]]
    assert [sample.reference_boxes for sample in samples] == [(), ((0, 0, 0.5, 1),), ((0, 0, 0.5, 1),)]
    assert [sample.face_box for sample in samples] == [(0, 0, 0.5, 1), None, None]


def test_a_field_that_does_not_exist_is_no_need() -> None:
    with pytest.raises(ValueError, match="no field 'garmet'"):
        whole_ones([Sample(name="a")], ("garmet",), "here")


@pytest.mark.parametrize("places", [[0, 1, 2], [30], [47], [3, 20, 46], [5, 5, 9]])
def test_frames_at_random_places_are_those_of_the_whole_film(places: list[int], roots: dict[str, Path]) -> None:
    path = roots["ubc"] / "train" / "00000.mp4"
    whole = [np.asarray(frame) for frame in Film(path)]
    assert num_frames(path) == len(whole) == 48
    for place, frame in zip(places, read_frames(path, places), strict=True):
        assert np.array_equal(np.asarray(frame), whole[place])


@pytest.mark.parametrize("layout", ["identities", "views"])
def test_hidden_files_are_no_pictures(layout: str, roots: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(roots[layout], tmp_path / "data")
    for folder in {path.parent for path in (tmp_path / "data").rglob("*.[pj][np]g")}:
        (folder / "._0000.png").write_bytes(b"\0\5\x16\7Mac OS X")
    found, whole = (open_dataset(root, layout, "train").samples for root in (tmp_path / "data", roots[layout]))
    assert [sample.name for sample in found] == [sample.name for sample in whole]
    assert [len(sample.views) for sample in found] == [len(sample.views) for sample in whole]


def test_frames_that_are_not_there_are_told(roots: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="has 48 frames, but frame 60"):
        read_frames(roots["ubc"] / "train" / "00000.mp4", [60])
    with pytest.raises(ValueError, match="has 4 frames, but frame 9"):
        read_frames(roots["viton_hd"] / "train" / "image", [9])


def test_references_are_far_and_clips_are_even() -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(50):
        reference, target = draw_pair(48, 30, random)
        assert 0 <= target < 48
        assert abs(target - reference) >= 30 or 18 <= reference <= 30
        reference, clip = draw_clip(48, 8, 4, random)
        assert 0 <= reference < 48
        assert set(np.diff(clip)) == {4}
        assert 0 <= clip[0] <= clip[-1] < 48
        _, short = draw_clip(5, 8, 4, random)
        assert short[0] == 0
        assert short[-1] == 4


def test_clips_draw_their_stride_where_there_are_several() -> None:
    random = torch.Generator().manual_seed(0)
    drawn = [draw_one((1, 4), random) for _ in range(200)]
    assert 80 < drawn.count(1) < 120
    assert drawn.count(1) + drawn.count(4) == 200
    before = random.get_state()
    assert draw_one((), random) is None
    assert torch.equal(random.get_state(), before)
    for name in ("published", "24gb"):  # 1 or 4 with equal chance, as AniPortrait's second stage
        assert read_config(configuration("aniportrait", name), "video").data.strides == (1, 4)


def test_crops_are_as_wide_as_nine_tenths_of_their_height_or_square() -> None:
    random = torch.Generator().manual_seed(0)
    for size in ((100, 100), (64, 96), (200, 100)):
        for _ in range(20):
            left, top, right, bottom = draw_crop(size, 0.8, random)
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
            ratio = (right - left) * size[0] / ((bottom - top) * size[1])
            assert 0.88 < ratio < 1.03
    assert cut(picture(0, (40, 60)), (0.5, 0.5, 1, 1), (16, 24)).size == (16, 24)


def test_pictures_are_moved_and_coloured_alike() -> None:
    image = picture(1)
    assert np.array_equal(np.asarray(moved(image, 1.0, (0.0, 0.0), 128)), np.asarray(image))
    shifted = np.asarray(moved(image, 1.0, (0.25, 0.0), 128))
    assert (shifted[:, :16] == 128).all()
    assert np.array_equal(shifted[:, 16:], np.asarray(image)[:, :-16])
    assert np.array_equal(
        np.asarray(Jitter(1.0, 1.0, 0.0, 1.0)(image.convert("HSV").convert("RGB"))).shape, (64, 64, 3)
    )


def test_every_round_has_each_sample_once_and_processes_share_it() -> None:
    one, two = StepSampler(count=12, batch=4, seed=5), StepSampler(count=12, batch=2, seed=5)
    rounds = [one.indices(batch) for batch in range(6)]
    for turn in (rounds[:3], rounds[3:]):
        assert sorted(sum(turn, [])) == list(range(12))
    assert rounds[:3] != rounds[3:]
    assert [two.indices(1, rank, 2) for rank in (0, 1)] == [rounds[1][:2], rounds[1][2:]]
    assert StepSampler(count=12, batch=4, seed=6).indices(0) != rounds[0]
    assert one.places(2) == [8, 9, 10, 11]

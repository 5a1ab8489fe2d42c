"""Data-set folders read back as the field's loaders read them, and are never half there."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from referencenet.paperdoll.cameras import CAMERAS, seen_from
from referencenet.paperdoll.character import split
from referencenet.paperdoll.figure import Figure
from referencenet.paperdoll.layouts import LAYOUTS, write_dataset
from referencenet.paperdoll.portrait_layouts import head_speeds
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.scene import Scene
from referencenet.paperdoll.skeleton import draw_skeleton
from referencenet.paperdoll.video import read_video, read_wav
from referencenet.preprocess.parts import LABELS


def _picture(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_viton_hd_reads_as_hr_viton_reads_it(tmp_path):
    root = write_dataset(tmp_path / "viton", 5, "viton-hd", 64, 3)
    for part, count in (("train", 4), ("test", 1)):
        lines = (root / f"{part}_pairs.txt").read_text().splitlines()
        assert len(lines) == count
        for line in lines:
            person, cloth = line.split()
            stem = person.removesuffix(".jpg")
            image, garment = (_picture(root / part / "image" / person), _picture(root / part / "cloth" / cloth))
            assert image.shape == garment.shape == (64, 48, 3)
            mask = _picture(root / part / "cloth-mask" / cloth) >= 128
            assert mask.shape == (64, 48)
            assert mask.any()
            parse = _picture(root / part / "image-parse-v3" / f"{stem}.png")
            assert {5, 6, 7} & set(np.unique(parse).tolist())
            assert parse.max() < 20
            hidden = _picture(root / part / "image-parse-agnostic-v3.2" / f"{stem}.png")
            assert not {5, 6, 7} & set(np.unique(hidden).tolist())
            pose = json.loads((root / part / "openpose_json" / f"{stem}_keypoints.json").read_text())
            points = np.array(pose["people"][0]["pose_keypoints_2d"]).reshape(-1, 3)
            assert points.shape == (25, 3)
            assert points[2, 0] < points[5, 0]  # right shoulder left of the left one: seen from the front
            assert points[:, 1].max() <= 64
            for folder, name in (
                ("openpose_img", f"{stem}_rendered.png"),
                ("image-densepose", person),
                ("agnostic-v3.2", person),
            ):
                assert _picture(root / part / folder / name).shape == (64, 48, 3)
            assert _picture(root / part / "agnostic-mask" / f"{stem}_mask.png").shape == (64, 48)


def test_ubc_films_come_in_pairs_of_equal_length(tmp_path):
    root = write_dataset(tmp_path / "ubc", 1, "ubc", 64, 3)
    rows = json.loads((root / "fashion_train_meta.json").read_text())
    film, poses = (read_video(root / rows[0][key]) for key in ("video_path", "kps_path"))
    assert film.shape == poses.shape == (48, 64, 48, 3)
    assert read_video(root / "train_densepose" / "00000.mp4").shape == film.shape
    assert poses.mean() < film.mean()


def test_tiktok_frames_have_masks_and_densepose(tmp_path):
    root = write_dataset(tmp_path / "tiktok", 1, "tiktok", 64, 3)
    clip = root / "TikTok_dataset" / "00001"
    names = sorted(path.name for path in (clip / "images").iterdir())
    assert names[0] == "0001.png"
    for name in names[::8]:
        image, mask, dense = (_picture(clip / kind / name) for kind in ("images", "masks", "densepose"))
        assert image.shape == dense.shape == (64, 36, 3)
        assert set(np.unique(mask).tolist()) == {0, 255}
        ground = dense[mask == 0]
        assert (ground == ground[0]).all()


def test_hdtf_heads_have_sound_and_masks(tmp_path):
    root = write_dataset(tmp_path / "hdtf", 1, "hdtf", 64, 3)
    film, (audio, rate) = read_video(root / "videos" / "0000.mp4"), read_wav(root / "audios" / "0000.wav")
    assert len(film) == len(list((root / "images" / "0000").iterdir())) == 50
    assert len(audio) / rate == pytest.approx(2.0)
    masks = {kind: _picture(root / kind / "0000.png") > 0 for kind in MASKS}
    assert np.array_equal(masks["face_mask"], ~masks["sep_pose_mask"])
    assert np.array_equal(masks["face_mask"], masks["sep_face_mask"] | masks["sep_lip_mask"])
    moving = np.abs(np.diff(film.astype(int), axis=0)).mean(axis=(0, 3))
    assert moving[masks["sep_lip_mask"]].mean() > moving[masks["sep_pose_mask"]].mean()


MASKS = ("face_mask", "sep_pose_mask", "sep_face_mask", "sep_lip_mask")


def test_flat_folder_is_an_image_folder_with_its_splits(tmp_path):
    root = write_dataset(tmp_path / "flat", 10, "flat", 64, 3)
    rows = {
        part: [json.loads(line) for line in (root / part / "metadata.jsonl").read_text().splitlines()]
        for part in ("train", "test")
    }
    assert [len(rows[part]) for part in ("train", "test")] == [8, 2]
    for part, entries in rows.items():
        for row in entries:
            assert split(row["character"]) == part
            assert _picture(root / part / row["file_name"]).shape == (64, 64, 3)
            assert row["attributes"]["background"] in row["text"]
            stem = row["file_name"].removesuffix(".png")
            drawn = _picture(root / "annotations" / f"{stem}_skeleton.png").astype(int)
            assert np.abs(draw_skeleton(np.array(row["keypoints"]), 64) - drawn).mean() < 0.5
            parts, dense = (_picture(root / "annotations" / f"{stem}_{kind}.png") for kind in ("parts", "dense"))
            assert np.array_equal(parts > 0, dense[..., 0] > 0)
            assert np.array(row["landmarks"]).shape == (68, 3)
    assert rows["train"][0]["character"] == rows["train"][1]["character"]


def test_views_turn_the_head_and_leave_the_rest(tmp_path):
    scene = Scene.from_seeds(3, 4, pose=Pose(), shot="portrait")
    seen = [seen_from(scene, camera) for camera in CAMERAS]
    assert {found.character for found in seen} == {scene.character}
    noses = np.array([Figure.of(found).head.ball.at(0, 0)[:2] for found in seen])
    assert (np.diff(noses[:7, 0]) > 0).all()  # the face looks ever further to the right of the picture
    assert noses[7, 1] > 0 > noses[10, 1]  # down, and up
    root = write_dataset(tmp_path / "views", 1, "views", 64, 3)
    pictures = [_picture(path) for path in sorted((root / "train" / "00000" / "cameras").iterdir())]
    assert len(pictures) == len(CAMERAS)
    assert not np.array_equal(pictures[0], pictures[6])


def test_parts_are_cut_out_and_what_is_not_worn_is_black(tmp_path):
    root = write_dataset(tmp_path / "parts", 3, "parts2whole", 64, 3)
    rows = [json.loads(line) for line in (root / "train.jsonl").read_text().splitlines()]
    for row in rows:
        assert set(row["mask"]) == set(LABELS)
        white = {label: (_picture(root / path) > 128).mean() for label, path in row["mask"].items()}
        whole = white["whole body clothes"] > 0
        assert whole == (white["upper body clothes"] == 0) == (white["lower body clothes"] == 0)
        assert not {"hair", "skin", "dress"} & set(row["caption"].replace(",", "").split())  # parts tell who it is
        assert white["face"] > 0.2
        assert all(_picture(root / row["appearance"][label]).max() == 0 for label in LABELS if "clothes" in label
                   and not white[label])  # fmt: skip


def test_head_speeds_are_degrees_a_frame():
    still = Pose(view="front")
    turning = [replace(still, head_turn=3.0 * i) for i in range(4)]
    assert head_speeds(turning) == pytest.approx([3, 3, 3, 3], abs=1e-4)
    nodding = [still, replace(still, head_pitch=-4.0), replace(still, head_pitch=-4.0, head_tilt=2.0)]
    assert head_speeds(nodding) == pytest.approx([4, 4, 2], abs=1e-4)
    assert head_speeds([still]) == [0]


def test_other_layouts_have_no_features(tmp_path):
    with pytest.raises(ValueError, match="layout is 'flat', which has no features"):
        write_dataset(tmp_path / "flat", 1, "flat", 64, embed=lambda frame: frame)
    with pytest.raises(ValueError, match="layout is 'flat', where no head talks"):
        write_dataset(tmp_path / "flat", 1, "flat", 64, sway=0.5)
    with pytest.raises(ValueError, match="sway is 2; expected a share from 0 to 1"):
        write_dataset(tmp_path / "hdtf", 1, "hdtf", 64, sway=2)
    with pytest.raises(ValueError, match="workers is 0"):
        write_dataset(tmp_path / "flat", 1, "flat", 64, workers=0)


def test_films_show_as_many_people_as_there_are():
    for layout in ("ubc", "hdtf"):
        entries = LAYOUTS[layout].entries(0, 200, 64)
        assert len({entry.character for entry in entries}) == len({entry.seed for entry in entries}) == 200
        assert sum(entry.split == "test" for entry in entries) == 40


def test_two_writes_are_equal_with_any_number_of_processes(tmp_path):
    roots = [write_dataset(tmp_path / name, 3, "viton-hd", 64, 9, workers=n) for name, n in (("a", 1), ("b", 2))]
    files = [sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file()) for root in roots]
    assert files[0] == files[1]
    assert all((roots[0] / name).read_bytes() == (roots[1] / name).read_bytes() for name in files[0])


def test_progress_counts(tmp_path):
    seen = []
    write_dataset(tmp_path / "flat", 3, "flat", 64, 1, lambda done, count: seen.append((done, count)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_full_folders_are_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is a folder that is not empty; expected a new or an empty folder"):
        write_dataset(tmp_path, 1, "flat", 64)
    with pytest.raises(FileExistsError, match="is a file"):
        write_dataset(tmp_path / "mine.txt", 1, "flat", 64)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_interrupted_writing_leaves_nothing(tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "flat", 3, "flat", 64, 1, stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, "coco", 64), f"layout is 'coco'; expected one of {', '.join(sorted(LAYOUTS))}"),
        ((0, "flat", 64), "count is 0; expected at least 1"),
        ((1, "flat", 63), "size is 63; expected an even number"),
        ((1, "flat", 1024), "size is 1024; expected an even number"),
        ((1, "flat", 64, -1), "seed is -1; expected an integer"),
    ],
)
def test_impossible_orders_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "new", *arguments)
    assert not (tmp_path / "new").exists()

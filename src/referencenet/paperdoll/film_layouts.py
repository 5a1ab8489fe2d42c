"""Layouts of dancing people: UBC fashion's films, and TikTok's folders of frames."""

from __future__ import annotations

from pathlib import Path

from referencenet.paperdoll.entries import Entry, Layout, Rows, by_split, drawn_cast, save, save_json
from referencenet.paperdoll.film import dance
from referencenet.paperdoll.maps import PARTS, dense_map, dense_picture, part_mask, segmentation
from referencenet.paperdoll.render import render
from referencenet.paperdoll.scene import Background
from referencenet.paperdoll.skeleton import skeleton
from referencenet.paperdoll.video import write_video

UBC_FRAMES, TIKTOK_FRAMES = 48, 24

films = drawn_cast("film seeds")
"""A character and a film each."""


def _draw_ubc(root: Path, entry: Entry) -> dict[str, str]:
    """Write `train/NAME.mp4`, the same under `train_dwpose` and `train_densepose`; the pair of paths."""
    name, size = f"{entry.number:05d}.mp4", entry.size
    film = dance(entry.character, entry.seed, num_frames=UBC_FRAMES, background=Background(colour="white"))
    kinds = {
        "": lambda scene: render(scene, size),
        "_dwpose": lambda scene: skeleton(scene, size),
        "_densepose": lambda scene: dense_picture(dense_map(scene, size)),
    }
    for kind, draw in kinds.items():
        target = root / f"{entry.split}{kind}"
        target.mkdir(exist_ok=True)
        write_video(target / name, map(draw, film.scenes), film.fps)
    return {"video_path": f"{entry.split}/{name}", "kps_path": f"{entry.split}_dwpose/{name}"}


def _finish_ubc(folder: Path, rows: Rows) -> None:
    for part, told in by_split(rows).items():
        if told:
            save_json(told, folder / f"fashion_{part}_meta.json", 1)


def _draw_tiktok(root: Path, entry: Entry) -> None:
    """Write `TikTok_dataset/NNNNN/{images,masks,densepose,openpose}/NNNN.png`."""
    target, size = root / "TikTok_dataset" / f"{entry.number + 1:05d}", entry.size
    film = dance(entry.character, entry.seed, num_frames=TIKTOK_FRAMES)
    for number, scene in enumerate(film.scenes, start=1):
        pictures = {
            "images": render(scene, size),
            "masks": part_mask(segmentation(scene, size), *PARTS[1:]),
            "densepose": dense_picture(dense_map(scene, size)),
            "openpose": skeleton(scene, size),
        }
        for kind, picture in pictures.items():
            save(picture, target / kind / f"{number:04d}.png")


def _finish_tiktok(folder: Path, rows: Rows) -> None:
    """TikTok's has no lists."""
    del folder, rows


UBC = Layout(draw=_draw_ubc, finish=_finish_ubc, width=3 / 4, cast=films)
TIKTOK = Layout(draw=_draw_tiktok, finish=_finish_tiktok, width=9 / 16, cast=films)

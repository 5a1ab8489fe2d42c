"""The files that `refnet demo` leaves to try commands on: what they show, and the same again."""

from pathlib import Path

import numpy as np
import pytest

from referencenet.media.films import Film
from referencenet.media.images import read_image, read_layers, read_mask
from referencenet.media.sound import SAMPLE_RATE, read_sound
from referencenet.paperdoll import examples
from referencenet.paperdoll.examples import FPS, SECONDS, SQUARE, UPRIGHT, write_examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "new"
    files = write_examples(folder)
    assert sorted(files) == sorted(folder.iterdir())
    return folder


def test_the_table_names_every_file_and_its_size(folder: Path) -> None:
    rows = [line for line in (examples.__doc__ or "").splitlines() if line.startswith("| `")]
    named = {name.strip("` "): row.split("|")[3] for row in rows for name in row.split("|")[1].split(",")}
    assert named.keys() == {path.name for path in folder.iterdir()}
    for name, size in named.items():
        path = folder / name
        if path.suffix == ".wav":
            assert len(read_sound(path)) == SECONDS * SAMPLE_RATE
            continue
        shown = next(iter(Film(path))) if path.suffix == ".mp4" else read_image(path)
        assert shown.size == tuple(map(int, size.split("x"))), name
        assert shown.size in ((SQUARE, SQUARE), UPRIGHT)


def test_masks_lie_where_the_person_is(folder: Path) -> None:
    hero = np.asarray(read_image(folder / "hero.png")).astype(int)
    seen = np.asarray(read_mask(folder / "hero_mask.png")) > 0
    ground = hero[0, 0]
    assert 0.1 < seen.mean() < 0.6
    assert np.abs(hero - ground)[~seen].mean() < 10 < np.abs(hero - ground)[seen].mean()
    repainted = np.asarray(read_mask(folder / "person_mask.png")) > 0
    dense = np.asarray(read_image(folder / "densepose.png")).astype(int)
    assert 0.02 < repainted.mean() < 0.3
    assert (np.abs(dense - dense[0, 0]).sum(axis=2) > 0)[repainted].mean() > 0.6
    for name in ("face", "shirt"):
        opacity = read_layers(folder / f"{name}.png")[1]
        assert opacity is not None
        assert 0.02 < (np.asarray(opacity) > 0).mean() < 0.5


def test_films_move_and_a_seed_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    for name in ("dance", "densepose"):
        frames = list(Film(folder / f"{name}.mp4"))
        assert len(frames) == SECONDS * FPS
        assert frames[0].tobytes() != frames[-1].tobytes()
    again = {path.name: path.read_bytes() for path in write_examples(tmp_path)}
    assert all((folder / name).read_bytes() == data for name, data in again.items())
    other = write_examples(tmp_path / "other", seed=1)[0]
    assert other.read_bytes() != again["hero.png"]

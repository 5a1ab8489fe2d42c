"""Random numbers of the world: pinned for ever, independent by aspect."""

import pytest

from referencenet.paperdoll.streams import Stream


def test_numbers_are_pinned():
    stream = Stream("pose", 7)
    assert [round(stream.uniform(), 12) for _ in range(3)] == PINNED


PINNED = [0.940911748443, 0.263169830823, 0.875225350415]


def test_aspects_and_seeds_are_independent_streams():
    drawn = {(aspect, seed): Stream(aspect, seed).uniform() for aspect in ("pose", "hair") for seed in range(50)}
    assert len(set(drawn.values())) == len(drawn)


def test_draws_keep_their_ranges():
    stream = Stream("test", 1)
    numbers = [stream.uniform(-2, 3) for _ in range(500)]
    assert -2 <= min(numbers) < -1.5
    assert 2.5 < max(numbers) < 3
    assert all(abs(stream.bell(4)) <= 4 for _ in range(200))
    assert {stream.integer(3) for _ in range(100)} == {0, 1, 2}


def test_weights_are_shares():
    stream = Stream("test", 2)
    drawn = [stream.weighted({"a": 0.8, "b": 0.2, "c": 0.0}) for _ in range(2000)]
    assert 0.77 < drawn.count("a") / 2000 < 0.83
    assert "c" not in drawn


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), ("7", TypeError), (True, TypeError)])
def test_what_is_no_seed_is_refused(seed, error):
    with pytest.raises(error, match="expected an integer of 0 or more"):
        Stream("pose", seed)

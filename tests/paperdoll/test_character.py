"""Characters: drawn from a seed alone, tellable apart, in splits that never mix."""

from dataclasses import asdict

from referencenet.paperdoll.character import _NEAR, Character, split


def test_same_seed_is_the_same_person():
    assert Character.from_seed(12) == Character.from_seed(12)


def test_people_differ():
    looks = {
        tuple(v for k, v in asdict(Character.from_seed(seed)).items() if k not in ("seed", "brow"))
        for seed in range(500)
    }
    assert len(looks) == 500


def test_trousers_stand_out_against_the_garment_above():
    for seed in range(300):
        who = Character.from_seed(seed)
        assert who.lower_colour != who.upper_colour
        assert {who.lower_colour, who.upper_colour} not in _NEAR
        assert {who.pattern_colour, who.upper_colour} not in _NEAR


def test_every_plain_tight_garment_of_most_people_carries_something_to_know_it_by():
    plain = [who for who in map(Character.from_seed, range(400)) if who.pattern == "plain" and who.upper != "jacket"]
    assert sum(who.emblem != "none" for who in plain) > 0.7 * len(plain)


def test_splits_are_disjoint_stable_and_of_the_promised_shares():
    splits = [split(seed) for seed in range(4000)]
    assert splits == [split(seed) for seed in range(4000)]
    assert 0.77 < splits.count("train") / 4000 < 0.83
    assert 0.08 < splits.count("validation") / 4000 < 0.12
    assert splits[:8] == PINNED


PINNED = ["train", "train", "train", "train", "train", "train", "train", "train"]

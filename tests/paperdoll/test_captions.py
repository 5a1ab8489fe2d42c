"""Captions: a closed vocabulary, and nothing about who it is when asked so."""

from dataclasses import replace

from referencenet.paperdoll.captions import IDENTITY, attributes, caption
from referencenet.paperdoll.character import Character
from referencenet.paperdoll.pose import Pose
from referencenet.paperdoll.scene import Scene

SCENES = [Scene.from_seeds(seed, seed + 1) for seed in range(2000)]


def test_vocabulary_is_small_and_closed():
    words = {word for scene in SCENES for word in caption(scene).replace(",", "").split()}
    assert len(words) <= 120


def test_captions_say_the_attributes_and_nothing_else():
    for scene in SCENES[:200]:
        assert sorted(caption(scene).split(", ")) == sorted(attributes(scene).values())


def test_captions_without_identity_do_not_depend_on_who_it_is():
    for scene in SCENES[:100]:
        other = replace(scene, character=Character.from_seed(99))
        assert caption(scene, identity=False) == caption(other, identity=False)
        assert not {attributes(scene)[key] for key in IDENTITY if key in attributes(scene)} & set(
            caption(scene, identity=False).split(", ")
        )


def test_captions_say_only_what_is_seen():
    back = Scene.from_seeds(1, 1, shot="full body", pose=Pose.named("standing", "back"))
    assert "expression" not in attributes(back)
    assert "with" not in attributes(back)["upper"]
    assert "lower" not in attributes(Scene.from_seeds(1, 1, shot="portrait"))

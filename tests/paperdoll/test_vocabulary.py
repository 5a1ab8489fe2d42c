"""The words of the built-in model's captions."""

from referencenet.builtin.load import WEIGHTS
from referencenet.inputs import read_json
from referencenet.paperdoll import Scene, caption
from referencenet.paperdoll.captions import VOCABULARY, unknown_words


def test_every_caption_is_known_and_every_word_is_a_token() -> None:
    for seed in range(200):
        assert unknown_words(caption(Scene.from_seeds(seed, seed))) == {}
    tokens = read_json(WEIGHTS / "base" / "tokenizer" / "tokenizer.json", "a tokenizer")["model"]["vocab"]
    assert {word for word in VOCABULARY if f"{word}</w>" not in tokens} == set()


def test_other_words_are_told_with_the_nearest() -> None:
    assert unknown_words("Full-body, wavin; 3 zebras, knight") == {"wavin": "waving", "zebras": None, "knight": "night"}

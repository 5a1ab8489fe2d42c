"""The vocabulary: every word of a caption is one token, and the tokenizer survives its folder."""

from __future__ import annotations

from pathlib import Path

from transformers import CLIPTokenizer

from referencenet.builtin.training.text import LENGTH, make_tokenizer, tokenize
from referencenet.paperdoll.captions import caption
from referencenet.paperdoll.scene import Scene

CAPTIONS = [caption(Scene.from_seeds(i, i)) for i in range(60)]


def test_words_of_captions_are_whole_tokens_and_captions_fit() -> None:
    tokenizer = make_tokenizer(CAPTIONS)
    words = CAPTIONS[0].replace(",", " ,").replace("-", " - ").split()
    assert len(tokenizer(CAPTIONS[0])["input_ids"]) == len(words) + 2
    assert max(len(tokenizer(text)["input_ids"]) for text in CAPTIONS) <= LENGTH


def test_unknown_words_are_spelt() -> None:
    tokenizer = make_tokenizer(CAPTIONS)
    assert tokenizer.unk_token_id not in tokenizer("zyxwv")["input_ids"][1:-1]


def test_tokenizer_survives_its_folder(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(CAPTIONS)
    tokenizer.save_pretrained(tmp_path)
    again = CLIPTokenizer.from_pretrained(tmp_path)
    assert tokenize(again, CAPTIONS[:5]).equal(tokenize(tokenizer, CAPTIONS[:5]))
    assert tokenize(again, [""]).shape == (1, LENGTH)

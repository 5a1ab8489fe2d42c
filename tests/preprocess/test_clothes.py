"""Masks of clothes by a SegFormer from a folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from referencenet.preprocess.agnostic import agnostic_mask
from referencenet.preprocess.clothes import CLASSES, ClothesSegmenter
from referencenet.preprocess.parts import LABELS
from tiny import picture

NAMES = ["Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe",
         "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf"]  # fmt: skip


def model(names: list[str], seen: str) -> SegformerForSemanticSegmentation:
    """A tiny model that sees one label everywhere."""
    config = SegformerConfig(num_encoder_blocks=1, depths=[1], sr_ratios=[1], hidden_sizes=[4], patch_sizes=[7],
                             strides=[4], num_attention_heads=[1], decoder_hidden_size=4,
                             id2label=dict(enumerate(names)),
                             label2id={name: i for i, name in enumerate(names)})  # fmt: skip
    made = SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        made.decode_head.classifier.weight.zero_()
        made.decode_head.classifier.bias.copy_(torch.tensor([float(name == seen) for name in names]))
    return made


def test_a_segmenter_from_a_folder_marks_its_labels(tmp_path: Path) -> None:
    model(NAMES, "Hair").save_pretrained(tmp_path)
    SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    segmenter = ClothesSegmenter.load(tmp_path)
    mask = segmenter(picture(size=(40, 24)), "hair or headwear")
    assert (mask.mode, mask.size, mask.getextrema()) == ("L", (40, 24), (255, 255))
    with pytest.raises(ValueError, match="the segmenter finds no face in this picture"):
        segmenter(picture(), "face")
    with pytest.raises(ValueError, match="there is no part 'hat'"):
        segmenter(picture(), "hat")


def test_a_parsing_has_the_numbers_of_atr_whatever_the_models_are() -> None:
    processor = SegformerImageProcessor(size={"height": 32, "width": 32})
    for seen, number in (("Face", 11), ("Upper-clothes", 4), ("Left-shoe", 9), ("Scarf", 17), ("Background", 0)):
        parsing = ClothesSegmenter(model(NAMES[::-1], seen), processor).parsing(picture(size=(40, 24)))
        assert (parsing.dtype, parsing.shape, set(parsing.flat)) == (np.uint8, (24, 40), {number})
    shirt = ClothesSegmenter(model(NAMES, "Upper-clothes"), processor).parsing(picture(size=(40, 24)))
    assert np.asarray(agnostic_mask(shirt, np.zeros((18, 2)))).any()


def test_labels_are_known_by_name() -> None:
    assert set(CLASSES) == set(LABELS)
    with pytest.raises(ValueError, match="has no label dress"):
        ClothesSegmenter(model([name for name in NAMES if name != "Dress"], "Face"), SegformerImageProcessor())

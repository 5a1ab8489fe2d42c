"""The built-in model's language: a CLIP tokenizer for paperdoll's captions, and a tiny CLIP text encoder."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 48  # tokens of a prompt; the longest caption has about 40
WIDTH = 96  # of the text encoder, and so of the UNets' cross attention


def make_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """Learn a vocabulary in which every word of the captions is one token; other ASCII words are spelt.

    Args:
        captions: All sentences that should be known.
    """
    words = sorted(
        {word for caption in captions for word in caption.lower().replace(",", " , ").replace("-", " - ").split()}
    )
    letters = string.ascii_lowercase + string.digits + string.punctuation
    model = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=10_000,
        min_frequency=1,
        show_progress=False,
        special_tokens=[START, END],
        initial_alphabet=list(letters),
        end_of_word_suffix="</w>",
    )
    model.train_from_iterator([*words, *letters], trainer)
    learned = json.loads(model.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    return CLIPTokenizer(vocab=learned["vocab"], merges=merges, model_max_length=LENGTH)  # pyright: ignore


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A text encoder of two layers for this tokenizer, untrained."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token numbers of captions, (captions, LENGTH) int64."""
    found = tokenizer(list(captions), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    return torch.as_tensor(found["input_ids"])

"""Tiny models, random weights, in the folder format of sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

WORDS = [
    "rye",
    "bread",
    "wheat",
    "soft",
    "white",
    "dark",
    "loaf",
    "milk",
    "whole",
    "organic",
    "cheese",
    "a",
    "of",
    "and",
    "title",
    "none",
    "text",
    "|",
    ":",
    "query",
]


def _tokenizer(folder: Path, special: dict[str, str], words: Sequence[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*special.values(), *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(folder)


def tiny_bert(folder: Path, words: Sequence[str] = WORDS, spread: float = 0.5) -> Path:
    """A BERT of two layers with mean pooling, 32 dimensions; the wider its weights spread, the more texts differ."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel

    _tokenizer(folder / "raw", {"pad_token": "[PAD]", "unk_token": "[UNK]"}, words)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words) + 2,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=spread,
    )
    BertModel(config).save_pretrained(folder / "raw")
    SentenceTransformer(str(folder / "raw"), device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"


def tiny_gemma(folder: Path) -> Path:
    """EmbeddingGemma's architecture: Gemma 3 encoder that looks both ways, mean pooling, dense layers, normalise."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
    from transformers import Gemma3TextConfig, Gemma3TextModel

    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    _tokenizer(folder / "raw", special, WORDS)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        use_bidirectional_attention=True,
        initializer_range=0.5,
    )
    Gemma3TextModel(config).save_pretrained(folder / "raw")
    encoder = Transformer(str(folder / "raw"))
    model = SentenceTransformer(
        modules=[
            encoder,
            Pooling(32, pooling_mode="mean"),
            Dense(32, 96, bias=False, activation_function=torch.nn.Identity()),
            Dense(96, 32, bias=False, activation_function=torch.nn.Identity()),
            Normalize(),
        ],
        device="cpu",
    )
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


# What queries and what products call the same thing: an untrained model cannot know.
COLOURS = {"red": "rouge", "blue": "bleu", "green": "vert", "black": "noir", "white": "blanc", "pink": "rose"}
THINGS = {"tea": "thé", "soap": "savon", "rice": "riz", "milk": "lait"}
TRANSLATED = [*COLOURS, *COLOURS.values(), *THINGS, *THINGS.values()]


def judgements(colours: Mapping[str, str], things: Mapping[str, str]) -> list[dict[str, str]]:
    """A query names a colour and a thing: both right is E, the thing S, the colour C, neither I."""
    rows = []
    for place, colour in enumerate(colours):
        for number, thing in enumerate(things):
            right, kind = colours[colour], things[thing]
            wrong, other_kind = list(colours.values())[place - 1], list(things.values())[number - 1]
            texts = (f"{kind} {right}", f"{kind} {wrong}", f"{other_kind} {right}", f"{other_kind} {wrong}")
            rows += [
                {"query": f"{colour} {thing}", "text": text, "grade": grade}
                for text, grade in zip(texts, "ESCI", strict=True)
            ]
    return rows

"""The token vocabulary, with real tokenizers that are built here."""

import json
from collections.abc import Sequence

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sid_pipeline.publication.vocabulary import Vocabulary, further_tokens

TEXT = ["the customer bought <a bread> and a_1 milk", "Next: a b c d 35 7 120 184 <a_ > <a_35"] * 20


def sid_tokens(codes: Sequence[int]) -> str:
    """A SID as its tokens, joined, as docs/consumers.md spells them."""
    return "".join(f"<{letter}_{code}>" for letter, code in zip("abcde", codes, strict=False))


def byte_level() -> Tokenizer:
    """As GPT and Llama have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT has it: lower case, split at punctuation."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


@pytest.mark.parametrize("further", [0, 16])
@pytest.mark.parametrize("build", [byte_level, word_piece])
def test_a_real_tokenizer_encodes_each_sid_to_exactly_its_tokens_and_back(build, further):
    vocabulary = Vocabulary(4, 512, further)
    tokenizer = build()
    base = tokenizer.get_vocab_size()
    tokens = json.loads(json.dumps(vocabulary.added_tokens()))
    assert tokenizer.add_tokens([AddedToken(**token) for token in tokens]) == 4 * 512 + further
    for first in range(512):
        codes = [first, (first * 7) % 512, 511 - first, (first * first) % 512] + ([first % 16] if further else [])
        text = sid_tokens(codes)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == [base + offset + code for offset, code in zip(vocabulary.offsets, codes, strict=True)]
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text


def test_sids_inside_of_a_sentence_through_transformers():
    from transformers import PreTrainedTokenizerFast

    vocabulary = Vocabulary(4, 512)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level())
    base = len(tokenizer)
    tokenizer.add_tokens([AddedToken(**token) for token in vocabulary.added_tokens()])
    text = f"the customer bought {sid_tokens((35, 7, 120, 184))}{sid_tokens((0, 511, 0, 1))} and milk"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    inside = [i - base for i in ids if i >= base]
    assert inside == [35, 512 + 7, 1024 + 120, 1536 + 184, 0, 512 + 511, 1024, 1536 + 1]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_tokens_stand_at_their_offset():
    vocabulary = Vocabulary(4, 512)
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == 2048
    assert vocabulary.tokens[vocabulary.offsets[2] + 120] == "<c_120>"


def test_further_tokens_end_the_list():
    assert Vocabulary(4, 512, 16).tokens[:2048] == Vocabulary(4, 512).tokens
    assert Vocabulary(4, 512, 16).tokens[2048:2050] == ["<e_0>", "<e_1>"]


@pytest.mark.parametrize(("largest", "before", "size"), [(0, 0, 16), (15, 0, 16), (16, 0, 32), (3, 64, 64)])
def test_the_further_level_has_room_and_never_shrinks(largest, before, size):
    assert further_tokens(largest, before) == size


def test_more_levels_than_letters_are_refused():
    with pytest.raises(ValueError, match="9 levels"):
        Vocabulary(9, 16)

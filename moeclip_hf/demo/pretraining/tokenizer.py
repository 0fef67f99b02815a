"""A small CLIP tokenizer: all bytes, and whole words for a general word list."""

import json
from importlib.resources import files

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .scenes import scene_nouns
from .texts import vocabulary_words


CONTEXT_LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"


def learn_tokenizer(max_merges: int = 4000) -> CLIPTokenizer:
    """Learn the vocabulary by byte-pair merges over the word list.

    Any text can be written with it, known words as one token, others in pieces down to single bytes. The end token is
    the last id, as in CLIP. The library breaks ties between merges at random, so another call gives other pieces:
    pretraining uses the shipped tokenizer, which is one outcome of this function.
    """
    words = vocabulary_words(scene_nouns())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + max_merges,
        min_frequency=1,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(words, trainer)
    merges = [tuple(merge) for merge in _merges(learner)]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    known = set(tokens)
    for left, right in merges:
        if left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
    tokens += [START, END]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        model_max_length=CONTEXT_LENGTH,
    )


def _merges(learner: Tokenizer) -> list[list[str]]:
    merges = json.loads(learner.to_str())["model"]["merges"]
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def shipped_tokenizer() -> CLIPTokenizer:
    """The tokenizer that was learnt once and is shipped with the weights."""
    return CLIPTokenizer.from_pretrained(str(files("moeclip_hf") / "demo" / "tiny_clip"))

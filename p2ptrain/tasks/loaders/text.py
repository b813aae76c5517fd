"""Reads a text as characters, for a net that says what comes next."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import MIB
from p2ptrain.tasks.loaders import files

TEXT_BYTES_MAX = 64 * MIB
"""Windows of 64-bit numbers take eight times that."""

TEST_SHARE = 0.1
"""The end of the text, as nanoGPT has it."""

CHARACTERS_MAX = 4096
"""Different ones; more is no alphabet, and the net's table grows with them."""


class Vocabulary:
    """The characters of a text, by number, in the order of Unicode."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._numbers = {character: number for number, character in enumerate(characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Tensor:
        """Return the numbers of characters, int64; those that the vocabulary lacks are left out."""
        known = (self._numbers[character] for character in text if character in self._numbers)
        return torch.tensor(list(known), dtype=torch.int64)

    def decode(self, tokens: Tensor) -> str:
        """Return the text of numbers."""
        return "".join(self.characters[token] for token in tokens.tolist())


class Text(NamedTuple):
    """tokens: int64 of shape (characters,). vocabulary: of the whole text, the same for all splits."""

    tokens: Tensor
    vocabulary: Vocabulary


def find() -> Path:
    """Return the folder with Shakespeare; get it if need be.

    Raises:
        ConfigError: it is not here, and could not be got.
    """
    return files.find("shakespeare")


def read(source: Path, split: str, dataset: str = "") -> Text:
    """Read a split of a text: `train` its beginning, `test` the last tenth.

    Args:
        source: a file in UTF-8, or the folder with Shakespeare.
        split: `train` or `test`.
        dataset: `shakespeare`, if it must be that; empty: any text.

    Raises:
        ConfigError: it is missing, damaged, no text, or too short.
    """
    file = source
    if source.is_dir():
        names = [name for name in ("tinyshakespeare.txt", "input.txt") if (source / name).exists()]
        file = source / (names[0] if names else "tinyshakespeare.txt")
    content = files.read(file, dataset, TEXT_BYTES_MAX)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is no text in UTF-8: byte {error.start} does not fit", files.AGAIN
        ) from None
    characters = "".join(sorted(set(text)))
    if not 2 <= len(characters) <= CHARACTERS_MAX:
        raise ConfigError(f"{file} has {len(characters)} different characters", "choose another text")
    vocabulary = Vocabulary(characters)
    border = len(text) - round(TEST_SHARE * len(text))
    return Text(vocabulary.encode(text[border:] if split == "test" else text[:border]), vocabulary)


def windows(tokens: Tensor, length: int, step: int = 0) -> tuple[Tensor, Tensor]:
    """Cut a text into examples: inputs, and the characters that follow each; views, of shape (count, length).

    Args:
        tokens: of shape (characters,).
        length: characters of an example.
        step: from the beginning of one to that of the next; 0: `length`, so that none are shared.

    Raises:
        ConfigError: the text is shorter than one example.
    """
    if len(tokens) <= length:
        raise ConfigError(
            f"{len(tokens)} characters are too few for examples of {length}", "choose a shorter context"
        )
    step = step or length
    return tokens[:-1].unfold(0, length, step), tokens[1:].unfold(0, length, step)

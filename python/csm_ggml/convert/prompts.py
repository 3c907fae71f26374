"""How a checkpoint was trained to be asked, from whatever lies beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from csm_ggml._core import ModelFormatError
from csm_ggml.text.prompt_format import MATCH, SEGMENT, PromptFormat

from .chat_template import read_template, text_format
from .families import Family
from .tokenizer import Vocabulary

_SPACED, _PLAIN = "[{speaker}] {text}", "[{speaker}]{text}"


def find_prompt(
    settings: Mapping[str, Any], folder: Path, vocabulary: Vocabulary, family: Family | None
) -> PromptFormat:
    """The prompt format: of the configuration, else of the chat template, else of the known model.

    Args:
        settings: the language model's config.json; empty if there is none.
        folder: the tokenizer's, which may hold a chat template.
        vocabulary: the tokenizer.
        family: the known model that it is, if it is one.

    Raises:
        ModelFormatError: a key or the template says what cannot be written.
    """
    prompt = family.prompt if family is not None else PromptFormat()
    template = read_template(folder)
    spaced = _flag(settings, "speaker_prefix_space", folder)
    if spaced is not None:
        prompt = replace(prompt, text=_SPACED if spaced else _PLAIN)
    elif template is not None:
        try:
            prompt = replace(prompt, text=_between_marks(template, vocabulary, folder))
        except ModelFormatError:
            # How a known model is asked is known.
            if family is None:
                raise
    match = _flag(settings, "voice_match", folder)
    return prompt if match is None else replace(prompt, voice=MATCH if match else SEGMENT)


def _flag(settings: Mapping[str, Any], key: str, folder: Path) -> bool | None:
    value = settings.get(key)
    if value is not None and not isinstance(value, bool):
        raise ModelFormatError(f"{folder}: {key} is {value!r}, expected true or false")
    return value


def _between_marks(template: str, vocabulary: Vocabulary, folder: Path) -> str:
    tokens = vocabulary.tokens
    marks = {"bos_token": tokens[vocabulary.bos], "eos_token": tokens[vocabulary.eos]}
    found = text_format(template, marks, str(folder))
    mark = re.search(r"<\|.*?\|>", found)
    if mark is not None:
        raise ModelFormatError(
            f"{folder}: the chat template writes {mark.group()!r} inside a segment, expected "
            f"text between {marks['bos_token']} and {marks['eos_token']}"
        )
    return found

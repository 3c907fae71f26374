"""How a prompt is written, from the chat template that lies beside a checkpoint's tokenizer.

A template is a program in the Jinja language. It is run in Jinja's sandbox on one message whose
speaker and words are known, and what it writes shows where they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from csm_ggml._core import ModelFormatError
from csm_ggml.inputs import read_whole
from csm_ggml.text.prompt_format import SPEAKER, WORDS

from .transformers_config import read_json, shown

_SPEAKER, _WORDS = "73", "Words to be said"


def read_template(folder: Path) -> str | None:
    """The template of a folder; None if there is none.

    Raises:
        ModelFormatError: a file that should hold it is damaged.
    """
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return read_whole(alone).decode("utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            template = read_json(folder / name).get("chat_template")
            if isinstance(template, str):
                return template
    return None


def text_format(template: str, marks: Mapping[str, str], where: str) -> str:
    """What stands between the marks of a segment, with `{speaker}` and `{text}`.

    Args:
        template: the template.
        marks: texts of the tokens `bos_token` and `eos_token`, which it may use and which are not
            part of the result.
        where: for messages.

    Raises:
        ModelFormatError: it cannot be run, or does not write a speaker and a text between the
            marks.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    message: dict[str, Any] = {
        "role": _SPEAKER,
        "content": [{"type": "text", "text": _WORDS}],
    }
    try:
        written = environment.from_string(template).render(
            messages=[message], add_generation_prompt=False, **marks
        )
    except Exception as error:  # templates are programs: anything may go wrong in one
        raise ModelFormatError(f"{where}: the chat template cannot be run: {error}") from None
    inner = written.strip()
    if inner.startswith(marks["bos_token"]):
        inner = inner.removeprefix(marks["bos_token"])
    inner = inner.split(marks["eos_token"])[0]
    if inner.count(_SPEAKER) != 1 or inner.count(_WORDS) != 1:
        raise ModelFormatError(
            f"{where}: the chat template writes {shown(written)} for speaker {_SPEAKER} and "
            f"{_WORDS!r}, expected both once between {marks['bos_token']} and {marks['eos_token']}"
        )
    return inner.replace(_SPEAKER, SPEAKER).replace(_WORDS, WORDS)

"""`convert` and `quantize_file`: the two ways from an existing checkpoint to one of our files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from csm_ggml._core import ModelFormatError
from csm_ggml.fetching import Hub
from csm_ggml.limits import check_count
from csm_ggml.text.prompt_format import PromptFormat

from . import hub_source
from .checkpoint import Checkpoint
from .config import from_metadata, to_metadata
from .layout import ENCODER_PREFIXES, expected
from .policy import TypePolicy, choose_policy
from .readers import Origin, open_origin
from .refusals import other_gguf
from .sources import Kind, PathLike, open_file
from .tensors import plain
from .tokenizer import read_metadata
from .writer import Report, plan, write


def convert(
    source: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    type: str | None = None,
    preset: str | None = None,
    mimi: PathLike | None = None,
    tokenizer: PathLike | None = None,
    depth_type: str | None = None,
    codec_type: str = "f32",
    name: str | None = None,
    family: str | None = None,
    base: PathLike | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    cache_dir: PathLike | None = None,
    token: str | bool | None = None,
    piece_characters: int | None = None,
    progress: bool = True,
) -> Report:
    """Convert a CSM checkpoint into one GGUF file that the engine loads.

    The source's kind is told by its tensor names: the original release, transformers' format (a
    folder that holds both counts as this), MLX's names, a LoRA adapter of PEFT (merged into the
    model that it was trained on), or the three GGUF files of llama.cpp pull request 12648. About
    one slice of a tensor is in memory at a time. PyTorch's pickles are read without running what is
    in them.

    Args:
        source: a safetensors or PyTorch file, a folder, a repository "owner/name" of the Hugging
            Face hub, the backbone file of a GGUF trio, or several files.
        output: the GGUF file to write; one that exists is replaced when the new one is complete.
        type: ggml type of the language models' matrices, such as `f16`, `q8_0`, `q4_k`; `f16`
            if left out.
        preset: `fast`, `balanced`, `high` or `exact` in place of `type` and `depth_type`.
        mimi: file, folder or repository of the codec, in Kyutai's or transformers' naming; needed
            where the source has none.
        tokenizer: a `tokenizer.json`, its folder or repository; needed where the source has none.
        depth_type: ggml type of the depth decoder if it shall differ from `type`.
        codec_type: `f32` or `f16`, of the codec's matrices and convolutions.
        name: the model's name for people; without it the name of the source, after that of
            its base for an adapter.
        family: `csm-1b`, `miso-tts` or `marvis-250m`: the model whose head widths, RoPE and prompts
            a checkpoint has that does not tell them and has other sizes.
        base: the model that an adapter was trained on, where it does not name it.
        revision: branch, tag or commit of the source's repository.
        local_files_only: never use the network.
        cache_dir: the hub cache; default is huggingface_hub's.
        token: hub access token; default is the one of `hf auth login`.
        piece_characters: into how long pieces long texts are cut for this model unless asked
            otherwise, 20 to 100000; 200 if left out.
        progress: show a bar while writing, if stderr is a terminal.

    Returns:
        What was written, with notes on assumptions and on formats that did not fit.

    Raises:
        ValueError: a type, preset or family is unknown, type and preset are given,
            piece_characters is out of range, or the output is one of the inputs.
        FileNotFoundError: a path or repository does not exist.
        ModelFormatError: the source is of no known kind, damaged, incomplete, or has features the
            engine lacks.
        OSError: the file cannot be written.
    """
    if preset is None and type is None:
        type = "f16"
    policy = choose_policy(preset, type, depth_type, codec_type)
    if piece_characters is not None:
        check_count("piece_characters", piece_characters)
    hub = Hub(None, local_files_only, cache_dir, token)
    of_source = replace(hub, revision=revision)
    several = [source] if isinstance(source, str | Path) else list(source)
    found = [hub_source.find(path, of_source) for path in several]
    origin = open_origin(
        found[0] if len(found) == 1 else found,
        None if mimi is None else hub_source.find(mimi, hub),
        None if tokenizer is None else hub_source.find_tokenizer(tokenizer, hub),
        family,
        base,
        lambda named: hub_source.find(named, hub),
    )
    if piece_characters is not None:
        generation = replace(origin.config.generation, piece_characters=piece_characters)
        origin = replace(origin, config=replace(origin.config, generation=generation))
    if name is None and isinstance(source, str | Path):
        whole = Path(source).resolve()
        name = whole.name if whole.is_dir() or hub_source.is_repository(source) else whole.stem
        name = name if origin.base is None else f"{origin.base} + {name}"
    return _write(origin, Path(output), policy, name, progress)


def quantize_file(
    source: PathLike,
    output: PathLike,
    type: str | None = None,
    depth_type: str | None = None,
    *,
    preset: str | None = None,
    codec_type: str = "f32",
    progress: bool = True,
) -> Report:
    """Rewrite one of our files with other number formats; tensors that keep theirs are copied.

    Args:
        source: a csm-ggml GGUF file.
        output: the file to write.
        type: ggml type of the language models' matrices.
        depth_type: ggml type of the depth decoder if it shall differ from `type`.
        preset: `fast`, `balanced`, `high` or `exact` in place of the two.
        codec_type: `f32` or `f16`.
        progress: show a bar while writing, if stderr is a terminal.

    Raises:
        ValueError: a type or preset is unknown, both or neither are given, or the output is the
            input.
        FileNotFoundError: a path does not exist.
        ModelFormatError: the source is not one of our files, or damaged.
        OSError: the file cannot be written.
    """
    policy = choose_policy(preset, type, depth_type, codec_type)
    file = open_file(Path(source))
    where = str(file.path)
    if file.kind is Kind.UNKNOWN and file.metadata:
        raise other_gguf(where, file.metadata.get("general.architecture"))
    if file.kind is not Kind.OWN:
        raise ModelFormatError(f"{where}: {file.kind.value}, expected a csm-ggml file; convert it")
    config = from_metadata(file.metadata, where)
    vocabulary = read_metadata(file.metadata, where)
    tensors = Checkpoint(where, file.tensors)
    encoder = tensors.has_prefix(*ENCODER_PREFIXES)
    items = [
        (spec, plain(tensors.take(spec.name, spec.shape), spec.shape))
        for spec in expected(config, encoder=encoder)
    ]
    tensors.finish([])
    prompt = PromptFormat.from_metadata(file.metadata, where)
    origin = Origin(config, vocabulary, prompt, items, [file.path], [])
    return _write(origin, Path(output), policy, config.name, progress)


def _write(
    origin: Origin, output: Path, policy: TypePolicy, name: str | None, progress: bool
) -> Report:
    planned, notes = plan(origin.items, policy)
    named = replace(origin.config, name=name)
    metadata = to_metadata(named) | origin.prompt.to_metadata() | origin.vocabulary.to_metadata()
    return write(
        output,
        metadata,
        planned,
        notes=[*origin.notes, *notes],
        inputs=origin.inputs,
        progress=progress,
    )

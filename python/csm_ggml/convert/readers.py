"""From source files to our tensors: one reader for each kind of checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from csm_ggml._core import ModelFormatError
from csm_ggml.text.prompt_format import PromptFormat

from . import codec_names, families, language_names
from .adapters import Opened, open_checkpoint
from .checkpoint import Checkpoint
from .codec import Codec, derive_config, open_codec
from .config import GenerationConfig, MimiConfig, ModelConfig, TransformerConfig, check
from .layout import Spec, expected
from .prompts import find_prompt
from .refusals import other_gguf
from .rope import Rope
from .sources import (
    Kind,
    PathLike,
    SourceFile,
    merge,
    names_of,
    open_file,
    open_sources,
    trio_siblings,
)
from .tensors import Rows, Stored, constant
from .tokenizer import Vocabulary, read_metadata, read_tokenizer_json
from .transformers_config import read_generation, read_json, read_mimi, read_model

MLX_MODEL_TYPES = ("sesame", "marvis")
"""What MLX may call a CSM model in its config.json."""


@dataclass
class Origin:
    """A checkpoint ready to be written.

    Attributes:
        config: hyper-parameters.
        vocabulary: the tokenizer.
        prompt: how the model was trained to be asked.
        items: our tensors in the order of the file, with where their values come from.
        inputs: the files read.
        notes: what a user should know, one sentence each.
        base: name of the model that an adapter was merged into; None if there was none.
    """

    config: ModelConfig
    vocabulary: Vocabulary
    prompt: PromptFormat
    items: list[tuple[Spec, Rows]]
    inputs: list[Path]
    notes: list[str]
    base: str | None = None


def open_origin(
    source: PathLike | Sequence[PathLike],
    mimi: PathLike | None,
    tokenizer: PathLike | None,
    family: str | None = None,
    base: PathLike | None = None,
    find: Callable[[PathLike], Path] = Path,
) -> Origin:
    """Find, recognize and check a checkpoint.

    Args:
        source: file, folder, or several of them.
        mimi: the codec's file or folder, if it is not with the source.
        tokenizer: `tokenizer.json` or its folder, if it is not with the source.
        family: the known model whose heads, RoPE and prompts the checkpoint has, where it does not
            tell them and has other sizes.
        base: the model that an adapter was trained on.
        find: turns the name of one into its path.

    Raises:
        ValueError: there is no such family.
        FileNotFoundError: a path does not exist.
        ModelFormatError: the checkpoint is of no known kind, incomplete, or has features that the
            engine lacks.
    """
    chosen = None if family is None else families.by_name(family)
    opened = open_checkpoint(source, base, find)
    files = opened.files
    if [f.kind for f in files] == [Kind.LLAMA_BACKBONE]:
        files += [open_file(path) for path in trio_siblings(files[0].path)]
    kinds = {file.kind for file in files}
    codec_files = [f for f in files if f.kind is Kind.CODEC]
    if mimi is not None:
        given = open_sources(mimi)
        codec_files = [f for f in given if f.kind in (Kind.CODEC, Kind.TRANSFORMERS)]
        if not codec_files:
            raise ModelFormatError(f"{mimi}: no Mimi weights found there")
    label = str(source) if isinstance(source, str | Path) else ", ".join(map(str, source))
    if tokenizer is None and opened.adapter and (opened.adapter / "tokenizer.json").is_file():
        tokenizer = opened.adapter
    if Kind.TRANSFORMERS in kinds or Kind.ORIGINAL in kinds:
        kind = Kind.TRANSFORMERS if Kind.TRANSFORMERS in kinds else Kind.ORIGINAL
        language = [f for f in files if f.kind is kind]
        reader = _Reader(label, language, codec_files, mimi is not None, tokenizer, chosen)
        origin = reader.transformers() if kind is Kind.TRANSFORMERS else reader.original()
        return _completed(origin, opened)
    if Kind.LLAMA_BACKBONE in kinds or Kind.LLAMA_DEPTH in kinds:
        language = [f for f in files if f.kind in (Kind.LLAMA_BACKBONE, Kind.LLAMA_DEPTH)]
        reader = _Reader(label, language, codec_files, mimi is not None, tokenizer, chosen)
        return _completed(reader.llama_csm(), opened)
    raise _unrecognized(label, files)


def _completed(origin: Origin, opened: Opened) -> Origin:
    """With what was said while the files were opened, and the names of those that nobody needs."""
    unused = [f for f in opened.files + opened.strays if f.path not in origin.inputs]
    notes = [*opened.notes, *origin.notes]
    if unused:
        notes.append(f"not used: {names_of(unused)}")
    return replace(origin, notes=notes, base=opened.base)


def _unrecognized(label: str, files: Sequence[SourceFile]) -> ModelFormatError:
    kinds = {file.kind for file in files}
    if Kind.OWN in kinds:
        return ModelFormatError(
            f"{label}: already a csm-ggml file; to change its number format use `csm-ggml quantize`"
        )
    for file in files:
        if file.kind is Kind.UNKNOWN and file.metadata:
            architecture = file.metadata.get("general.architecture")
            return other_gguf(file.path, architecture)
    seen = "; ".join(f"{f.path.name}: {f.kind.value}" for f in files[:5]) or "no weights files"
    return ModelFormatError(
        f"{label}: no CSM checkpoint ({seen}); expected the weights of sesame/csm-1b, "
        "a transformers folder, an adapter, or sesame-csm-backbone.gguf with its decoder and "
        "kyutai-mimi.gguf"
    )


class _Reader:
    """What the readers have in common: the codec, the tokenizer, and the list of tensors."""

    def __init__(
        self,
        label: str,
        language: list[SourceFile],
        codec_files: list[SourceFile],
        codec_given: bool,
        tokenizer: PathLike | None,
        family: families.Family | None,
    ):
        self.family = family
        self.label, self.language, self.codec_files = label, language, codec_files
        self.codec_given, self.tokenizer = codec_given, tokenizer
        self.folder = language[0].path.parent
        self.notes: list[str] = []

    def transformers(self) -> Origin:
        tensors = merge(self.language)
        inside = {n: t for n, t in tensors.items() if n.startswith("codec_model.")}
        language = Checkpoint(self.label, {n: t for n, t in tensors.items() if n not in inside})
        path = self.folder / "config.json"
        if not path.is_file():
            raise ModelFormatError(f"{path}: missing; transformers writes it next to the weights")
        settings = read_json(path)
        codec, mimi = self._codec(settings, path)
        generation = read_generation(self.folder / "generation_config.json")
        config, ropes = read_model(settings, str(path), mimi, generation)
        build = language_names.from_transformers
        return self._origin(config, ropes, language, build, codec, settings)

    def original(self) -> Origin:
        language = Checkpoint(self.label, merge(self.language))
        path = self.folder / "config.json"
        settings = read_json(path) if path.is_file() else {}
        if settings.get("model_type") in MLX_MODEL_TYPES:
            settings["model_type"] = "csm"
        codec, mimi = self._codec(settings, path)
        generation = read_generation(self.folder / "generation_config.json")
        if settings.get("num_hidden_layers"):
            config, ropes = read_model(settings, str(path), mimi, generation)
        else:
            config, ropes = self._from_shapes(language, settings, mimi, generation)
        return self._origin(config, ropes, language, language_names.from_original, codec, settings)

    def _from_shapes(
        self,
        source: Checkpoint,
        settings: Mapping[str, Any],
        mimi: MimiConfig,
        generation: GenerationConfig,
    ) -> tuple[ModelConfig, dict[str, Rope]]:
        """Hyper-parameters of an original checkpoint whose sizes nobody tells but its tensors."""
        widths = {
            part: _widths(source, prefix)
            for part, prefix in (("backbone", "backbone."), ("depth", "decoder."))
        }
        family = self.family or families.by_widths(widths, settings, self.label)
        if family.rope is None:
            raise ModelFormatError(
                f"{self.label}: {family.name}'s RoPE is told by its config.json alone, which is "
                "missing or has no layer sizes; put it next to the weights"
            )
        sizes = {
            part: families.sizes_like(family, part, found, self.label)
            for part, found in widths.items()
        }
        pages, _, codes = source.shape("audio_head", 3)
        config = ModelConfig(
            codebooks=pages + 1,
            audio_vocab_size=codes,
            text_vocab_size=source.shape("text_embeddings.weight", 2)[0],
            context_length=families.CONTEXT,
            backbone=sizes["backbone"],
            depth=sizes["depth"],
            mimi=mimi,
            generation=generation,
        )
        check(config, self.label)
        self.notes.append(
            f"no config.json with layer sizes: heads, RoPE and context length are {family.name}'s"
        )
        return config, dict.fromkeys(("backbone", "depth"), family.rope)

    def llama_csm(self) -> Origin:
        parts: dict[str, SourceFile] = {}
        tensors: dict[str, Stored] = {}
        for kind, prefix in (
            (Kind.LLAMA_BACKBONE, language_names.LLAMA_BACKBONE),
            (Kind.LLAMA_DEPTH, language_names.LLAMA_DEPTH),
        ):
            found = [f for f in self.language if f.kind is kind]
            if len(found) != 1:
                names = ", ".join(f.path.name for f in found) or "none"
                raise ModelFormatError(
                    f"{self.label}: {kind.value}: {names}; expected one. "
                    "Name the files that belong together: backbone, decoder, codec"
                )
            parts[prefix] = found[0]
            tensors |= {prefix + n: t for n, t in found[0].tensors.items()}
        language = Checkpoint(self.label, tensors)
        codec, mimi = self._codec({}, self.folder / "config.json")
        backbone = parts[language_names.LLAMA_BACKBONE]
        config = _from_llama_keys(language, backbone, parts[language_names.LLAMA_DEPTH], mimi)
        ropes = {
            part: Rope(getattr(config, part).freq_base, families.LLAMA3_ROPE.scaling)
            for part in ("backbone", "depth")
        }
        self.notes.append("the files carry no RoPE scaling: csm-1b's is written")
        vocabulary = None
        if self.tokenizer is None:
            vocabulary = read_metadata(backbone.metadata, str(backbone.path))
        build = language_names.from_llama_csm
        return self._origin(config, ropes, language, build, codec, {}, vocabulary)

    def _codec(self, settings: Mapping[str, Any], path: Path) -> tuple[Codec, MimiConfig]:
        """The codec's tensors and hyper-parameters; `settings` is the language model's config."""
        files = self.codec_files
        inside = not self.codec_given and any(
            name.startswith("codec_model.") for f in self.language for name in f.tensors
        )
        if inside:
            files = self.language
        if not files:
            raise ModelFormatError(
                f"{self.label}: no Mimi weights found; pass mimi= (--mimi): kyutai/mimi, or the "
                "tokenizer-*.safetensors of kyutai/moshiko-pytorch-bf16"
            )
        tensors = merge(files)
        prefixed = any(name.startswith("codec_model.") for name in tensors)
        chosen = codec_names.flat_names(tensors, "codec_model." if prefixed else "")
        codec = open_codec(Checkpoint(str(files[0].path), chosen))
        own_path = files[0].path.parent / "config.json"
        own = settings if own_path == path else {}
        if own_path != path and own_path.is_file():
            own = read_json(own_path)
        if own.get("model_type") == "mimi":
            return codec, read_mimi(own, str(own_path))
        if isinstance(own.get("codec_config"), Mapping):
            return codec, read_mimi(own["codec_config"], f"{own_path}: codec_config")
        self.notes.append(
            "no configuration of the codec: sizes taken from its tensors, the rest is Mimi's own"
        )
        return codec, derive_config(codec)

    def _vocabulary(self, family: families.Family | None) -> Vocabulary:
        path = self._tokenizer_folder() / "tokenizer.json"
        if self.tokenizer is not None and not Path(self.tokenizer).is_dir():
            path = Path(self.tokenizer)
        if not path.is_file():
            raise ModelFormatError(
                f"{path}: missing; pass tokenizer= (--tokenizer), the tokenizer.json of "
                "sesame/csm-1b or of meta-llama/Llama-3.2-1B"
            )
        return read_tokenizer_json(path, None if family is None else family.marks)

    def _tokenizer_folder(self) -> Path:
        if self.tokenizer is None:
            return self.folder
        path = Path(self.tokenizer)
        return path if path.is_dir() else path.parent

    def _origin(
        self,
        config: ModelConfig,
        ropes: Mapping[str, Rope],
        language: Checkpoint,
        build: language_names.Builder,
        codec: Codec,
        settings: Mapping[str, Any],
        vocabulary: Vocabulary | None = None,
    ) -> Origin:
        family = self.family or families.by_config(config)
        vocabulary = vocabulary or self._vocabulary(family)
        prompt = find_prompt(settings, self._tokenizer_folder(), vocabulary, family)
        vocabulary.check_size(config.text_vocab_size, self.label)
        if not codec.has_encoder:
            self.notes.append("the codec has no encoder: the file can speak, not encode audio")
        factors = {
            f"{part}.rope_freqs.weight": ropes[part].factors(getattr(config, part).head_dim)
            for part in ("backbone", "depth")
        }
        items = []
        for spec in expected(config, encoder=codec.has_encoder):
            if spec.name in factors:
                rows = constant(factors[spec.name])
            elif spec.name.startswith("mimi."):
                rows = codec.rows(spec, config)
            else:
                rows = build(spec, config, language)
            items.append((spec, rows))
        language.finish([*language_names.IGNORABLE, *language_names.LLAMA_IGNORABLE])
        self.notes += codec.finish(config)
        inputs = [f.path for f in (*self.language, *self.codec_files)]
        return Origin(config, vocabulary, prompt, items, inputs, self.notes)


def _widths(source: Checkpoint, prefix: str) -> families.Widths:
    query = source.shape(prefix + "layers.0.attn.q_proj.weight", 2)
    count = 0
    while f"{prefix}layers.{count}.attn.q_proj.weight" in source:
        count += 1
    return families.Widths(
        layers=count,
        width=query[1],
        query=query[0],
        key=source.shape(prefix + "layers.0.attn.k_proj.weight", 2)[0],
        hidden=source.shape(prefix + "layers.0.mlp.w1.weight", 2)[0],
    )


def _from_llama_keys(
    source: Checkpoint, backbone: SourceFile, depth: SourceFile, mimi: MimiConfig
) -> ModelConfig:
    """Hyper-parameters of the pull request's files from their keys and tensors."""

    def get(file: SourceFile, key: str, *, real: bool = False) -> Any:
        value = file.metadata.get("llama-csm." + key)
        allowed = int | float if real else int
        if isinstance(value, bool) or not isinstance(value, allowed) or value <= 0:
            raise ModelFormatError(
                f"{file.path}: llama-csm.{key} is {value!r}, expected a positive number"
            )
        return value

    def transformer(file: SourceFile) -> TransformerConfig:
        return TransformerConfig(
            block_count=get(file, "block_count"),
            embedding_length=get(file, "embedding_length"),
            feed_forward_length=get(file, "feed_forward_length"),
            head_count=get(file, "attention.head_count"),
            head_count_kv=get(file, "attention.head_count_kv"),
            head_dim=get(file, "attention.key_length"),
            rms_epsilon=float(get(file, "attention.layer_norm_rms_epsilon", real=True)),
            freq_base=float(get(file, "rope.freq_base", real=True)),
        )

    table = source.shape(language_names.LLAMA_DEPTH + "audio_embd.weight", 2)
    codes = source.shape(language_names.LLAMA_BACKBONE + "codebook0_head.weight", 2)[0]
    if table[0] % codes:
        raise ModelFormatError(
            f"{depth.path}: 'audio_embd.weight' has {table[0]} rows, expected a multiple of the "
            f"{codes} codes of 'codebook0_head.weight'"
        )
    config = ModelConfig(
        codebooks=table[0] // codes,
        audio_vocab_size=codes,
        text_vocab_size=source.shape(language_names.LLAMA_BACKBONE + "token_embd.weight", 2)[0],
        context_length=get(backbone, "context_length"),
        backbone=transformer(backbone),
        depth=transformer(depth),
        mimi=mimi,
    )
    check(config, source.label)
    return config

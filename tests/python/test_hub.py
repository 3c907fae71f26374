"""Names become files: aliases, folders, trios, repositories; and every way in which they do not."""

import errno
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import csm_ggml
import pytest
from csm_ggml import ModelFormatError, ModelNotFoundError
from csm_ggml.loading import hub
from huggingface_hub import errors

TRIO = ("sesame-csm-backbone.gguf", "sesame-csm-decoder.gguf", "kyutai-mimi.gguf")


def fill(folder: Path, names: Iterable[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_a_file(tmp_path: Path) -> None:
    path = fill(tmp_path, ["model.gguf"]) / "model.gguf"
    assert hub.resolve(path).paths == (path,)
    assert hub.resolve(str(path)) == hub.ModelFiles(str(path), (path,))
    assert hub.resolve([path]).paths == (path,)


def test_a_folder_with_one_file(tmp_path: Path) -> None:
    fill(tmp_path, ["model.gguf", "README.md", "tokenizer.json"])
    assert hub.resolve(tmp_path).paths == (tmp_path / "model.gguf",)


@pytest.mark.parametrize("given", [*TRIO, "."])
def test_three_files_that_belong_together(tmp_path: Path, given: str) -> None:
    fill(tmp_path, TRIO)
    expected = tuple(tmp_path / name for name in TRIO)
    assert hub.resolve(tmp_path / given).paths == expected
    assert hub.resolve(sorted(expected)).paths == expected


def test_of_several_quantizations_the_one_named_alike(tmp_path: Path) -> None:
    names = ("csm-backbone-q8.gguf", "csm-backbone-q4.gguf", "csm-decoder-q8.gguf")
    fill(tmp_path, [*names, "csm-decoder-q4.gguf", "kyutai-mimi.gguf"])
    found = hub.resolve(tmp_path / "csm-backbone-q4.gguf").paths
    assert [path.name for path in found] == [
        "csm-backbone-q4.gguf",
        "csm-decoder-q4.gguf",
        "kyutai-mimi.gguf",
    ]
    with pytest.raises(ModelNotFoundError, match=r"5 \.gguf files .* name the file you mean"):
        hub.resolve(tmp_path)


def test_a_trio_with_a_gap(tmp_path: Path) -> None:
    fill(tmp_path, TRIO[:2])
    with pytest.raises(ModelNotFoundError, match="holds no mimi file"):
        hub.resolve(tmp_path / TRIO[0])
    with pytest.raises(ModelNotFoundError, match="or three whose names contain"):
        hub.resolve([tmp_path / TRIO[0], tmp_path / TRIO[1]])
    with pytest.raises(ModelNotFoundError, match="no such file"):
        hub.resolve([tmp_path / name for name in TRIO])


def test_a_word_in_the_name_makes_no_trio(tmp_path: Path) -> None:
    path = fill(tmp_path, ["mimi-only.gguf", "other.gguf"]) / "mimi-only.gguf"
    assert hub.resolve(path).paths == (path,)


@pytest.mark.parametrize("names", [["model.safetensors", "config.json"], ["ckpt.pt"]])
def test_pytorch_weights_say_how_to_convert(tmp_path: Path, names: list[str]) -> None:
    fill(tmp_path, names)
    for given in (tmp_path, tmp_path / names[0]):
        source = given if given.suffix == ".pt" else tmp_path  # a folder with its config.json
        with pytest.raises(ModelFormatError, match=f"csm-ggml convert {source} -o model.gguf"):
            hub.resolve(given)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"holds no \.gguf file"):
        hub.resolve(tmp_path)
    for name in (str(tmp_path / "no.gguf"), "no.gguf", "models/no.gguf", "demmo", "./csm-1b", ""):
        with pytest.raises(ModelNotFoundError, match="no such file or folder"):
            hub.resolve(name)
    assert issubclass(ModelNotFoundError, FileNotFoundError)


class FakeHub:
    """huggingface_hub with repositories that hold empty files."""

    def __init__(self, folder: Path, repositories: dict[str, list[str]]) -> None:
        self.folder = folder
        self.repositories = repositories
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.empty = False

    def model_info(self, repository: str, *, revision: str | None, timeout: float) -> Any:
        if self.error is not None:
            raise self.error
        files = [SimpleNamespace(rfilename=name) for name in self.repositories[repository]]
        return SimpleNamespace(siblings=files)

    def snapshot_download(self, repository: str, **options: Any) -> str:
        if self.error is not None and not options["local_files_only"]:
            raise self.error
        if self.empty:
            raise error(errors.LocalEntryNotFoundError)
        self.asked.append({"repository": repository, **options})
        patterns = options["allow_patterns"]
        names = [n for n in self.repositories[repository] if any(fnmatch(n, p) for p in patterns)]
        return str(fill(self.folder / repository, names))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    one = FakeHub(
        tmp_path / "hub",
        {
            "me/one": ["voice.gguf", ".gitattributes"],
            "me/three": ["README.md", *TRIO],
            "me/torch": ["model.safetensors", "config.json"],
            "me/many": ["a-q4.gguf", "a-q8.gguf"],
            "ggml-org/sesame-csm-1b-GGUF": list(TRIO),
        },
    )
    monkeypatch.setattr("huggingface_hub.snapshot_download", one.snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda token: one)
    return one


def names(found: hub.ModelFiles) -> list[str]:
    return [path.name for path in found.paths]


def test_csm_1b_is_the_public_trio(fake: FakeHub) -> None:
    found = hub.resolve("csm-1b", local_files_only=True, token="t", revision="r", cache_dir="c")
    assert names(found) == list(TRIO)
    assert found.name == "csm-1b"
    [asked] = fake.asked
    assert asked == {
        "repository": "ggml-org/sesame-csm-1b-GGUF",
        "allow_patterns": list(TRIO),
        "local_files_only": True,
        "revision": "r",
        "cache_dir": "c",
        "token": "t",
    }


@pytest.mark.parametrize("offline", [False, True])
def test_repositories(fake: FakeHub, offline: bool) -> None:
    assert names(hub.resolve("me/one", local_files_only=offline)) == ["voice.gguf"]
    assert names(hub.resolve("me/many/a-q8.gguf", local_files_only=offline)) == ["a-q8.gguf"]
    assert names(hub.resolve("me/three", local_files_only=offline)) == list(TRIO)


def test_a_file_that_is_not_in_the_repository(fake: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError, match=r"me/one/other\.gguf: the repository has no such"):
        hub.resolve("me/one/other.gguf")


def test_repositories_that_are_not_one_model(fake: FakeHub) -> None:
    with pytest.raises(ModelFormatError, match="csm-ggml convert me/torch"):
        hub.resolve("me/torch")
    with pytest.raises(ModelNotFoundError, match=r"2 \.gguf files .*a-q4\.gguf, a-q8\.gguf"):
        hub.resolve("me/many")


def test_without_network_the_cache_serves(fake: FakeHub) -> None:
    fake.error = ConnectionError("no route to host")
    assert names(hub.resolve("me/one")) == ["voice.gguf"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_serves_what_it_has(fake: FakeHub, number: int) -> None:
    found = fake.model_info("me/one", revision=None, timeout=1)
    fake.model_info = lambda *_, **__: found  # type: ignore[method-assign]
    fake.error = OSError(number, "no")
    assert names(hub.resolve("me/one")) == ["voice.gguf"]
    fake.empty = True
    with pytest.raises(ModelNotFoundError, match="me/one: cannot be fetched"):
        hub.resolve("me/one")


def test_a_mistyped_path_is_asked_for_once_and_said(fake: FakeHub) -> None:
    asked: list[str] = []

    def model_info(repository: str, **_: Any) -> Any:
        asked.append(repository)
        raise ConnectionError("no route to host")

    fake.model_info = model_info  # type: ignore[method-assign]
    fake.empty = True
    with pytest.raises(ModelNotFoundError, match="models/cms: no such file or folder here"):
        hub.resolve("models/cms")
    assert asked == ["models/cms"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name_or_path": 5}, "a model is a name, a path or a list of paths, got 5"),
        ({"name_or_path": None}, "got None"),
        ({"name_or_path": b"demo"}, "got b'demo'"),
        ({"name_or_path": ["a.gguf", 3]}, "got 3"),
        ({"name_or_path": "demo", "revision": 5}, "revision must be a str, got 5"),
        ({"name_or_path": "demo", "cache_dir": 5}, "cache_dir must be a path, got 5"),
        ({"name_or_path": "demo", "token": 5}, "token must be a str or a bool, got 5"),
    ],
)
def test_arguments_of_a_wrong_kind(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        hub.resolve(**arguments)


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    for variable in ("CSM_GGML_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    assert hub.user_cache().is_absolute()
    with pytest.raises(ModelNotFoundError, match="no such file or folder"):
        hub.resolve("~nobody-of-this-name/x.gguf")


def error(kind: type[Exception], message: str = "boom") -> Exception:
    made = kind.__new__(kind)
    made.args = (message,)
    return made


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (error(errors.GatedRepoError), "access is gated"),
        (error(errors.RepositoryNotFoundError), "no such repository"),
        (error(errors.RevisionNotFoundError), "no such revision"),
        (error(errors.LocalEntryNotFoundError), "not in the local cache"),
        (error(errors.HFValidationError, "bad name"), "bad name"),
        (OSError("disk full"), "cannot be fetched: disk full"),
    ],
)
def test_what_the_hub_says(fake: FakeHub, raised: Exception, message: str) -> None:
    fake.error = raised
    with pytest.raises(ModelNotFoundError, match=f"^me/one: .*{message}"):
        hub.resolve("me/one/voice.gguf")


def test_the_demo_is_in_the_package() -> None:
    (path,) = hub.resolve("demo").paths
    assert path.parent.parent == Path(csm_ggml.__file__).parent
    assert path.is_file()


def test_user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CSM_GGML_CACHE", str(tmp_path))
    assert hub.user_cache() == tmp_path
    monkeypatch.delenv("CSM_GGML_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert hub.user_cache() == tmp_path / "xdg" / "csm-ggml"

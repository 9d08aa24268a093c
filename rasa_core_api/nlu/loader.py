"""What `-u` and the `nlu` endpoint name, as an interpreter."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.interpreter import Interpreter

if TYPE_CHECKING:
    from rasa_core_api.endpoints import EndpointConfig, OutgoingHTTP
    from rasa_core_api.nlu.message import Connect
    from rasa_core_api.nlu.model import Breathe, NluModel

log = Logger()

_TRAIN = "python -m rasa_core_api.nlu.train -c CONFIG --data {path} -o OUT"
_MAX_LOOKED_AT = 200  # files and folders, for a hint


class EmbeddedInterpreter(Interpreter):
    """Understands texts with a model in this process."""

    embedded = True

    def __init__(self, model: NluModel, breathe: Breathe | None = None) -> None:
        """`breathe` lets others have their turn between the steps of a long text."""
        self.model = model
        self._breathe = breathe

    async def parse(self, text: str, message_id: str | None = None) -> dict[str, JSON]:
        return await self.model.parse_message(text, message_id, breathe=self._breathe)


def make_interpreter(
    nlu: str | None,
    endpoint: EndpointConfig | None,
    *,
    http: OutgoingHTTP,
    clock: IReactorTime,
    environ: Mapping[str, str],
    new_id: Callable[[], str] | None = None,
    breathe: Breathe | None = None,
) -> Interpreter | None:
    """The interpreter for the value of `-u` and the `nlu` entry of the endpoints file; None where there is neither.

    With an entry, the server there is asked, and `-u` names its project and model; else `-u` is a model here. The
    environment says where retrained models are kept (`cache_directory`) and may replace the URL of duckling.
    `new_id` makes the ids that an NLU server is told of messages, `breathe` is for `EmbeddedInterpreter`.
    Raises UnsupportedModel and InvalidConfiguration as `load_nlu` does.
    """
    if endpoint is not None:
        from rasa_core_api.nlu.remote import RemoteInterpreter, project_and_model

        project, model = (None, None) if nlu is None else project_and_model(nlu)
        return RemoteInterpreter(endpoint, http=http, clock=clock, project=project, model=model, new_id=new_id)
    if nlu is None:
        return None
    from rasa_core_api.nlu.duckling import duckling_factory
    from rasa_core_api.nlu.message import NetworkComponent

    loaded = load_nlu(Path(nlu), cache=cache_directory(environ), connect=duckling_factory(http, clock, environ))
    if any(isinstance(component, NetworkComponent) for component in loaded.components):
        http.prepare()  # what calls need is imported now, not in the middle of the first message
    return EmbeddedInterpreter(loaded, breathe)


def cache_directory(environ: Mapping[str, str]) -> Path | None:
    """Where models that had to be trained again are kept; None where the environment names no place for such."""
    base = environ.get("XDG_CACHE_HOME")
    if not base:
        home = environ.get("HOME")
        if not home:
            return None
        base = f"{home}/.cache"
    return Path(base) / "rasa_core_api" / "nlu"


def load_nlu(path: Path, *, cache: Path | None = None, connect: Connect | None = None) -> NluModel:
    """The model in a directory, or in an archive of one: of this package's format, or one that rasa_nlu wrote.

    `cache` keeps what had to be trained again, `connect` makes network parts (without it they find nothing). Raises
    UnsupportedModel, naming file and reason; for training data it says which command makes a model of it.
    """
    if path.is_dir():
        return _load_directory(path, cache, connect)
    from rasa_core_api.models.archives import is_archive, unpack

    if is_archive(path):
        with tempfile.TemporaryDirectory(prefix="rasa_core_api-") as scratch:
            directory = Path(scratch) / "model"
            try:
                unpack(path, directory)
            except UnsupportedModel as error:
                raise UnsupportedModel(f"{path}: {error}", **error.details) from error
            inner = _models_in(directory)
            if not (directory / "metadata.json").exists() and len(inner) == 1:
                directory = inner[0]
            try:
                model = _load_directory(directory, cache, connect)
            except UnsupportedModel as error:
                named = str(error).replace(str(directory), str(path))
                raise UnsupportedModel(named, **error.details) from error
            model.source = str(path)
            return model
    if not path.exists():
        raise UnsupportedModel(f"there is no NLU model at {path}", file=path.name)
    raise UnsupportedModel(f"{path} is not an NLU model{_hint(path)}", file=path.name)


def _load_directory(path: Path, cache: Path | None, connect: Connect | None) -> NluModel:
    if not (path / "metadata.json").exists():
        raise UnsupportedModel(f"{path} is not an NLU model: it has no metadata.json{_hint(path)}", file=path.name)
    from rasa_core_api.nlu.legacy import load_legacy, read_metadata
    from rasa_core_api.nlu.storage import is_new_format, load_model

    if is_new_format(read_metadata(path)):
        model = load_model(path, connect)
        log.debug("NLU model {path}: {count} parts", path=str(path), count=len(model.components))
    else:
        model, _ = load_legacy(path, cache=cache, connect=connect)
    model.source = str(path)
    return model


def _models_in(directory: Path) -> list[Path]:
    """Model directories up to two levels below a directory."""
    found = islice(directory.glob("*/metadata.json"), 5), islice(directory.glob("*/*/metadata.json"), 5)
    return [path.parent for level in found for path in sorted(level)]


def _hint(path: Path) -> str:
    """What may have been meant by a path that is no model."""
    if path.is_dir():
        models = _models_in(path)
        if models:
            return f"; is {models[0]} meant?"
        files = [file for file in islice(path.rglob("*"), _MAX_LOOKED_AT) if file.suffix in (".md", ".json")]
    else:
        files = [path]
    if any(_is_data(file) for file in files):
        return f"; it is training data, make a model of it with: {_TRAIN.format(path=path)}"
    return ""


def _is_data(path: Path) -> bool:
    from rasa_core_api.exceptions import InvalidTrainingData
    from rasa_core_api.nlu.data_loading import load_data

    try:
        load_data(path)
    except InvalidTrainingData:
        return False
    return True

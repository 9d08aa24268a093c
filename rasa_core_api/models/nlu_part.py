"""The NLU model in an unpacked archive: alone, or beside a dialogue model in one archive as 0.14 packed them."""

from __future__ import annotations

from pathlib import Path

from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.nlu.loader import load_nlu

_METADATA = "metadata.json"
_TEXTS = ("hello", "", "I would like \u00e9 1 2 3!", "x" * 2000)


def beside_dialogue_model(directory: Path) -> Path | None:
    """The NLU model of an archive that holds `core/` and `nlu/`, or None."""
    nlu = directory / "nlu"
    return nlu if (directory / "core").is_dir() and (nlu / _METADATA).is_file() else None


def nlu_directory(directory: Path) -> Path:
    """Where the NLU model lies: here, in `nlu/`, or in the only directory. Raises `UnsupportedModel`."""
    inside = [place for place in directory.iterdir() if place.is_dir() and not place.name.startswith((".", "__"))]
    places = [directory, directory / "nlu", *(inside if len(inside) == 1 else [])]
    for place in places:
        if (place / _METADATA).is_file():
            return place
    raise UnsupportedModel(f"the archive holds no NLU model: there is no {_METADATA}", file=_METADATA)


def try_nlu(directory: Path, cache: Path | None) -> None:
    """Load the model and parse some texts. Raises `UnsupportedModel`."""
    model = load_nlu(directory, cache=cache)
    for text in _TEXTS:
        try:
            model.parse(text)
        except Exception as error:
            raise UnsupportedModel(
                f"the NLU model fails to parse a text: {type(error).__name__}: {error}", file=_METADATA
            ) from error

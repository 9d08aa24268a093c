"""Training of the conditional random field for entities, with CRFsuite.

Features, tags and parameters are those of rasa_nlu 0.12-0.15, so the same data gives the same model.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rasa_core_api.constants import JSON
from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.nlu.crf import DEFAULT_FEATURES, KNOWN_FEATURES, CrfEntities, sentence_attributes
from rasa_core_api.nlu.message import Message, Token

_ITERATION = re.compile(r"Iteration #(\d+)")

Iteration = Callable[[int, int], None]  # iterations done, iterations at most


def train_crf(
    texts: Sequence[tuple[Message, Sequence[Mapping[str, JSON]]]],
    settings: Mapping[str, JSON],
    extractor: str = "ner_crf",
    iteration: Iteration | None = None,
) -> tuple[CrfEntities | None, list[str]]:
    """Train on all texts, those without entities too; returns the model and remarks for the operator.

    A text is its message after tokenizer and regex featurizer, with its entities. There is no model when no text has
    an entity of this extractor (an entity can name the `extractor` that it is meant for). `iteration` is told of
    progress. Raises InvalidConfiguration when CRFsuite is not installed.
    """
    try:
        import pycrfsuite
    except ImportError:
        raise InvalidConfiguration(
            "training entities needs the package python-crfsuite, which is not installed here; install it, or take "
            "ner_crf out of the pipeline"
        ) from None
    features = settings.get("features") or DEFAULT_FEATURES
    remarks = [
        f"the CRF feature {name!r} is not known here and left out"
        for name in sorted({name for row in features for name in row} - KNOWN_FEATURES)
    ]
    own = [
        (message, [entity for entity in entities if entity.get("extractor") in (None, "ner_crf", extractor)])
        for message, entities in texts
    ]
    if not any(entities for _, entities in own):
        return None, remarks

    class Trainer(pycrfsuite.Trainer):  # type: ignore[misc]
        """Passes progress on instead of printing it."""

        def message(self, text: str) -> None:
            match = _ITERATION.search(text)
            if match and iteration is not None:
                iteration(int(match[1]), int(settings["max_iterations"]))

    trainer = Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params(
        {
            "c1": settings["L1_c"],
            "c2": settings["L2_c"],
            "max_iterations": settings["max_iterations"],
            "feature.possible_transitions": True,
        }
    )
    misaligned = 0
    for message, entities in own:
        tags, whole = tags_of(message.tokens, entities, bool(settings["BILOU_flag"]))
        misaligned += not whole
        trainer.append(sentence_attributes(message.tokens, message.pattern_flags, features), tags)
    if misaligned:
        remarks.append(
            f"{misaligned} texts have entities that do not begin and end with a word; their words are learnt as such"
        )
    return CrfEntities(_train(trainer), settings, "entities.crfsuite", extractor), remarks


def _train(trainer: Any) -> bytes:
    number, path = tempfile.mkstemp(".crfsuite")
    os.close(number)
    try:
        trainer.train(path, holdout=-1)
        with open(path, "rb") as stream:
            return stream.read()
    finally:
        os.unlink(path)


def tags_of(tokens: Sequence[Token], entities: Sequence[Mapping[str, JSON]], bilou: bool) -> tuple[list[str], bool]:
    """The tag of each word, and whether every entity begins and ends with a word.

    Tags are `O`, or the entity's name after `U-` (one word) or `B-`, `I-`, `L-` (first, inner, last word); without
    `bilou` just the name. Words inside an entity that does not begin and end with a word have the tag `-`.
    """
    tags = ["O"] * len(tokens)
    starts = {token.offset: number for number, token in enumerate(tokens)}
    ends = {token.end: number for number, token in enumerate(tokens)}
    whole = True
    for entity in entities:
        first, last = starts.get(entity["start"]), ends.get(entity["end"])
        if first is not None and last is not None and first <= last:
            name = entity["entity"]
            if not bilou:
                tags[first : last + 1] = [name] * (last - first + 1)
            elif first == last:
                tags[first] = f"U-{name}"
            else:
                tags[first : last + 1] = [f"B-{name}", *[f"I-{name}"] * (last - first - 1), f"L-{name}"]
        else:
            whole = False
            for number, token in enumerate(tokens):
                if token.offset < entity["end"] and entity["start"] < token.end and tags[number] == "O":
                    tags[number] = "-"
    return tags, whole

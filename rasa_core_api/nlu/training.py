"""From a pipeline and training data to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from rasa_core_api.exceptions import InvalidConfiguration
from rasa_core_api.nlu.components import defaults
from rasa_core_api.nlu.config import ComponentConfig, PipelineConfig
from rasa_core_api.nlu.data import Example, TrainingData
from rasa_core_api.nlu.features import CountVectors, RegexFeatures, train_regex_features
from rasa_core_api.nlu.keyword import KeywordIntents
from rasa_core_api.nlu.message import Component, Connect, Message, NetworkComponent
from rasa_core_api.nlu.model import MAX_TEXT, NluModel, NotConnected
from rasa_core_api.nlu.synonyms import Synonyms, learn_synonyms
from rasa_core_api.nlu.tokenizers import WhitespaceTokenizer

#: Component, steps done, steps in all, and a remark about how it goes.
Progress = Callable[[str, int, int, str], None]

#: What cannot be had without spaCy or MITIE, and what is trained in its place (None: nothing is needed).
REPLACED: Mapping[str, str | None] = {
    "nlp_spacy": None,
    "nlp_mitie": None,
    "tokenizer_spacy": "tokenizer_whitespace",
    "tokenizer_mitie": "tokenizer_whitespace",
    "intent_featurizer_spacy": None,
    "intent_featurizer_mitie": None,
    "intent_featurizer_ngrams": None,
    "intent_classifier_sklearn": "intent_classifier_linear",
    "intent_classifier_mitie": "intent_classifier_linear",
    "ner_mitie": "ner_crf",
}
#: What has no counterpart; pipelines that name it are trained without.
LEFT_OUT: Mapping[str, str] = {
    "ner_spacy": "it needs a language model of spaCy",
    "ner_duckling": "it ran inside the old NLU; ner_duckling_http asks a duckling server instead",
}


@frozen
class Trained:
    """Components, and remarks for the operator."""

    components: list[Component | NetworkComponent]
    remarks: list[str] = field(factory=list)


def train_model(
    config: PipelineConfig,
    data: TrainingData,
    *,
    trained_at: str = "",
    roots: Sequence[Path] = (),
    connect: Connect | None = None,
    progress: Progress | None = None,
) -> tuple[NluModel, list[str]]:
    """Train all of a pipeline; returns the model and remarks for the operator.

    `roots` are the folders under which files of lookup tables are looked for (none: no file is opened). Raises
    InvalidTrainingData or InvalidConfiguration, before anything is trained where possible.
    """
    data = data.with_lookups_read(roots)
    trained = train_components(config, data, connect=connect, progress=progress)
    asked = {
        "language": config.language,
        "pipeline": [{"name": part.written or part.name, **part.settings} for part in config.components],
    }
    model = NluModel(config.language, trained.components, data, asked, trained_at)
    return model, [*config.remarks, *data.remarks(), *trained.remarks]


def train_components(
    config: PipelineConfig,
    data: TrainingData,
    *,
    given: Mapping[int, Component | NetworkComponent] | None = None,
    connect: Connect | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train the parts of a pipeline in order.

    Parts at the positions in `given` are there already; they only prepare the examples for later parts. `connect`
    makes network parts; without it a placeholder keeps their place. Parts that need spaCy or MITIE are replaced or left
    out, with a remark.
    """
    training = _Training(data, config.language, connect, progress or (lambda *_: None))
    for position, part in enumerate(config.components):
        if given is not None and position in given:
            training.add(given[position])
        else:
            training.train(part)
    return Trained(training.components, training.remarks)


class _Training:
    """Examples as messages that the trained parts have prepared, and the parts so far."""

    def __init__(self, data: TrainingData, language: str, connect: Connect | None, progress: Progress) -> None:
        self._data = data
        self._language = language
        self._connect = connect
        self._progress = progress
        self._texts: list[tuple[Message, Example]] = [
            (Message(example.text[:MAX_TEXT]), example) for example in data.examples
        ]
        self.components: list[Component | NetworkComponent] = []
        self.remarks: list[str] = []

    def add(self, component: Component | NetworkComponent) -> None:
        """Take over a part; tokenizers and featurizers prepare the examples for those behind it."""
        self.components.append(component)
        if isinstance(component, (WhitespaceTokenizer, RegexFeatures, CountVectors)):
            for message, _ in self._texts:
                component.process(message)

    def train(self, part: ComponentConfig) -> None:
        """Train one part, or what stands for it."""
        if part.name in LEFT_OUT:
            self.remarks.append(f"{part.written} is left out: {LEFT_OUT[part.name]}")
            return
        if part.name == "tokenizer_jieba":
            raise InvalidConfiguration(
                f"{part.written} is not available: Chinese words cannot be told apart here; "
                "use tokenizer_whitespace, or leave it out and use CountVectorsFeaturizer with 'analyzer: char'",
                key="pipeline",
            )
        name: str | None = part.name
        if part.name in REPLACED:
            name = REPLACED[part.name]
            self.remarks.append(
                f"{part.written} is not needed" if name is None else f"{name} stands for {part.written}"
            )
        if name is not None:
            self.add(self._trained(name, part))

    def _trained(self, name: str, part: ComponentConfig) -> Component | NetworkComponent:
        self._progress(part.written or name, 0, 1, "")
        if name == "tokenizer_whitespace":
            return WhitespaceTokenizer()
        if name == "intent_entity_featurizer_regex":
            return train_regex_features(self._data, every_match=part.modern)
        if name == "intent_featurizer_count_vectors":
            vectors = CountVectors(part.settings, {})
            self.remarks += vectors.train(message for message, example in self._texts if example.intent)
            return vectors
        if name == "ner_crf":
            return self._crf(part)
        if name == "ner_synonyms":
            return self._synonyms(part)
        if name == "intent_classifier_keyword":
            return KeywordIntents()
        if name == "intent_classifier_linear":
            return self._linear(part)
        if name == "intent_classifier_tensorflow_embedding":
            return self._embedding(part)
        if name == "ner_duckling_http":
            if self._connect is None:
                return NotConnected(name, part.settings, part.shown)
            return self._connect(part.settings, part.shown, self._language)
        raise InvalidConfiguration(f"{part.written} cannot be trained here", key="pipeline")

    def _crf(self, part: ComponentConfig) -> Component:
        from rasa_core_api.nlu.crf_training import train_crf
        from rasa_core_api.nlu.untrained import UntrainedEntities

        settings = part.settings if part.name == "ner_crf" else defaults("ner_crf")
        extractor = part.shown if part.name == "ner_crf" else "ner_crf"
        model, remarks = train_crf(
            [(message, example.entities) for message, example in self._texts],
            settings,
            extractor,
            lambda done, most: self._progress(part.written, done, most, ""),
        )
        self.remarks += remarks
        if model is None:
            self.remarks.append(f"{part.written} finds nothing: no example has an entity")
            return UntrainedEntities()
        return model

    def _synonyms(self, part: ComponentConfig) -> Synonyms:
        pairs: list[tuple[str, object]] = list(self._data.synonyms.items())
        for example in self._data.examples:
            pairs += [
                (example.text[entity["start"] : entity["end"]], entity.get("value")) for entity in example.entities
            ]
        synonyms, remarks = learn_synonyms(pairs)
        self.remarks += remarks
        return Synonyms(synonyms, part.shown)

    def _linear(self, part: ComponentConfig) -> Component:
        from rasa_core_api.nlu.linear_training import train_linear
        from rasa_core_api.nlu.untrained import UntrainedIntents

        examples = [example for _, example in self._texts if example.intent]
        own = part.name == "intent_classifier_linear"
        # one intent is always the answer; where the original's classifier is named, it answers null as that did
        if len({example.intent for example in examples}) < (1 if own else 2):
            self.remarks.append(f"{part.written} has nothing to learn: there are fewer than two intents")
            return UntrainedIntents(part.name, null_intent=not own)
        model, remarks = train_linear(examples, part.settings)
        self.remarks += remarks
        return model

    def _embedding(self, part: ComponentConfig) -> Component:
        from rasa_core_api.nlu.embedding_training import train_embedding
        from rasa_core_api.nlu.untrained import UntrainedIntents

        def epoch(done: int, epochs: int, loss: float, right: float | None) -> None:
            note = f"loss {loss:.3f}" + ("" if right is None else f", right {right:.1%}")
            self._progress(part.written, done, epochs, note)

        width = max((message.width for message, _ in self._texts), default=0)
        examples = [(message.counts, str(example.intent)) for message, example in self._texts if example.intent]
        model = train_embedding(examples, width, part.settings, epoch)
        if model is None:
            self.remarks.append(f"{part.written} has nothing to learn: it needs two intents and a known word")
            return UntrainedIntents(part.name, null_intent=False)
        return model

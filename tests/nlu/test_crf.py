"""Entities from a conditional random field: features, marginal probabilities and the rules of reading tags."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa_core_api.exceptions import InvalidConfiguration, UnreadableFile
from rasa_core_api.legacy.crfsuite import read_crfsuite
from rasa_core_api.nlu import crf
from rasa_core_api.nlu.crf import DEFAULT_FEATURES, CrfEntities, WordScores, sentence_attributes, word_attributes
from rasa_core_api.nlu.message import Message
from rasa_core_api.nlu.tokenizers import tokenize
from tests.legacy import writers


def test_word_attributes() -> None:
    """Text features carry their value, flags only their weight."""
    names = ["low", "title", "upper", "digit", "bias", "prefix5", "prefix2", "suffix5", "suffix3", "suffix2", "suffix1"]
    assert word_attributes("Zürich", {}, [*names, "pos"], -1) == {
        "-1:low:zürich": 1.0,
        "-1:title": 1.0,
        "-1:upper": 0.0,
        "-1:digit": 0.0,
        "-1:bias:bias": 1.0,
        "-1:prefix5:Züric": 1.0,
        "-1:prefix2:Zü": 1.0,
        "-1:suffix5:ürich": 1.0,
        "-1:suffix3:ich": 1.0,
        "-1:suffix2:ch": 1.0,
        "-1:suffix1:h": 1.0,
    }
    assert word_attributes("10", {"zip": True, "x": False}, ["digit", "pattern"], 0) == {
        "0:digit": 1.0,
        "0:pattern:zip": 1.0,
        "0:pattern:x": 0.0,
    }


def test_sentence_attributes() -> None:
    """The words around a position take part; beyond the text there is BOS or EOS, once each."""
    features = [["low"], ["upper"], ["low"], ["low"], ["low", "pattern"]]
    flags = [{"p": False}, {"p": True}]
    assert sentence_attributes(tokenize("go NOW"), flags, features) == [
        {"BOS": 1.0, "0:low:go": 1.0, "1:low:now": 1.0, "EOS": 1.0},
        {"BOS": 1.0, "-1:upper": 0.0, "0:low:now": 1.0, "EOS": 1.0},
    ]
    assert sentence_attributes(tokenize("a b c"), [{"p": False}, {}, {"p": True}], features)[0] == {
        "BOS": 1.0,
        "0:low:a": 1.0,
        "1:low:b": 1.0,
        "2:low:c": 1.0,
        "2:pattern:p": 1.0,
    }
    assert sentence_attributes([], [], features) == []


WORDS = ["fly", "to", "Berlin", "NOW", "7"]
LABELS = ["O", "B-city", "L-city", "U-city", "-"]


def random_file(seed: int, scale: float = 1.0) -> bytes:
    """A model with random weights for all attributes of WORDS."""
    chance = random.Random(seed)
    attributes = {"BOS", "EOS"}
    for word, place in itertools.product(WORDS, range(3)):
        attributes |= word_attributes(word, {"p": True}, DEFAULT_FEATURES[place], place - 1).keys()
    state = {
        (attribute, label): chance.gauss(0, scale)
        for attribute in sorted(attributes)
        for label in chance.sample(LABELS, 3)
    }
    return writers.crfsuite(LABELS, state, {pair: chance.gauss(0, scale) for pair in itertools.product(LABELS, LABELS)})


def by_enumeration(data: bytes, sentence: list[dict[str, float]]) -> np.ndarray:
    """Marginals from the definition: the sum over all labellings."""
    model = read_crfsuite(data, "x")
    scores = np.zeros((len(sentence), len(model.labels)))
    for row, attributes in zip(scores, sentence, strict=True):
        for name, weight in attributes.items():
            number = model.attributes.get(name)
            for place in range(model.starts[number], model.starts[number + 1]) if number is not None else ():
                row[model.targets[place]] += weight * model.weights[place]
    marginals = np.zeros_like(scores)
    for labelling in itertools.product(range(len(model.labels)), repeat=len(sentence)):
        total = sum(scores[t, label] for t, label in enumerate(labelling))
        total += sum(model.transitions[a, b] for a, b in itertools.pairwise(labelling))
        for t, label in enumerate(labelling):
            marginals[t, label] += math.exp(total)
    return marginals / marginals.sum(axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=5), st.integers(0, 9), st.booleans())
def test_marginals(words: list[str], seed: int, flagged: bool) -> None:
    """Marginals are the sums over all labellings, with and without regular expressions."""
    data = random_file(seed)
    tokens = tokenize(" ".join(words))
    flags = [{"p": token.text == "7"} for token in tokens] if flagged else []
    scores = WordScores(read_crfsuite(data, "x"), DEFAULT_FEATURES)
    expected = by_enumeration(data, sentence_attributes(tokens, flags, DEFAULT_FEATURES))
    for _ in range(2):  # with and without what is kept of words
        found = scores.marginals(tokens, flags)
        assert found is not None
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_marginals_of_the_library(tmp_path: Path) -> None:
    """Marginals equal those of CRFsuite to 1e-12 for a model that it trained, also of long texts."""
    pycrfsuite = pytest.importorskip("pycrfsuite")
    chance = random.Random(5)
    trainer = pycrfsuite.Trainer(verbose=False)
    for length in range(1, 25):
        tokens = tokenize(" ".join(chance.choices(WORDS, k=length)))
        tags = [chance.choice(LABELS) if token.text != "fly" else "O" for token in tokens]
        trainer.append(sentence_attributes(tokens, [], DEFAULT_FEATURES), tags)
    trainer.set_params({"c1": 0.1, "c2": 0.1, "max_iterations": 50, "feature.possible_transitions": True})
    path = tmp_path / "m.crfsuite"
    trainer.train(str(path))
    tagger = pycrfsuite.Tagger()
    tagger.open(str(path))
    scores = WordScores(read_crfsuite(path.read_bytes(), "x"), DEFAULT_FEATURES)
    for length in (1, 2, 3, 30, 400):
        tokens = tokenize(" ".join(chance.choices([*WORDS, "new"], k=length)))
        tagger.set(sentence_attributes(tokens, [], DEFAULT_FEATURES))
        found = scores.marginals(tokens, [])
        expected = [[tagger.marginal(label, t) for label in tagger.labels()] for t in range(length)]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_words_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of words is bounded, long words are not kept, and neither changes the result."""
    monkeypatch.setattr(crf, "MAX_WORDS", 3)
    model = read_crfsuite(random_file(1), "x")
    small, fresh = WordScores(model, DEFAULT_FEATURES), WordScores(model, DEFAULT_FEATURES)
    fresh._most = 10_000
    for text in ("fly to Berlin", "NOW 7", "fly to Berlin NOW 7 fly", "fly", "a" * 41 + " to Berlin", "x y z"):
        found, expected = small.marginals(tokenize(text), []), fresh.marginals(tokenize(text), [])
        assert found is not None
        np.testing.assert_array_equal(found, expected)
        assert len(small._rows) <= 3
    assert not [key for key in fresh._rows if len(str(key)) > 40]


def test_extreme_weights() -> None:
    """Weights that are very far apart give probabilities or nothing, no warning and no error."""
    for seed in range(5):
        scores = WordScores(read_crfsuite(random_file(seed, 1000.0), "x"), DEFAULT_FEATURES)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            found = scores.marginals(tokenize(" ".join(WORDS * 40)), [])
        assert found is None or np.isfinite(found).all()


def tagger(labels: list[str], **settings: object) -> CrfEntities:
    """Labels each word `w<n>` with the nth label, nearly for certain."""
    state = {(f"0:low:w{number}", label): 9.0 for number, label in enumerate(labels)}
    data = writers.crfsuite(labels, state, {})
    return CrfEntities(data, {"features": [["low"]], **settings}, "x")


TAGS = ["O", "B-city", "I-city", "L-city", "U-city", "I-name", "L-name", "-"]


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("U-city", [("w4", "city", True)]),
        ("U-city U-city", [("w4", "city", True), ("w4", "city", True)]),
        ("O B-city L-city O", [("w1 w3", "city", True)]),
        ("B-city I-city L-city", [("w1 w2 w3", "city", True)]),
        ("B-city I-name L-city", [("w1 w5 w3", "city", True)]),
        ("B-city L-name", [("w1 w6", "city", True)]),
        ("B-city O", [("w1", "city", True)]),
        ("B-city B-city L-city", [("w1", "city", True), ("w1 w3", "city", True)]),
        ("B-city U-city", [("w1", "city", True), ("w4", "city", True)]),
        ("B-city", [("w1", "city", False)]),
        ("B-city I-city", [("w1 w2", "city", False)]),
        ("I-city L-city O -", []),
        ("O I-city U-city", [("w4", "city", True)]),
    ],
)
def test_reading_tags(tags: str, entities: list[tuple[str, str, bool]]) -> None:
    """Tags become entities by the rules of rasa_nlu; one that the text cuts off has confidence 0."""
    text = " ".join(f"w{TAGS.index(tag)}" for tag in tags.split())
    message = Message(text, tokens=tokenize(text))
    tagger(TAGS).process(message)
    found = [(entity["value"], entity["entity"], entity["confidence"] > 0.99) for entity in message.entities]
    assert found == entities
    assert all(
        certain or entity["confidence"] == 0.0
        for entity, (_, _, certain) in zip(message.entities, entities, strict=True)
    )


def test_confidence() -> None:
    """An entity's confidence is the smallest over its tokens of the summed marginals of its name."""
    labels = ["O", "B-city", "L-city", "U-city"]
    state = {("0:low:a", "B-city"): 1.5, ("0:low:a", "U-city"): 1.0, ("0:low:b", "L-city"): 1.2}
    extractor = CrfEntities(writers.crfsuite(labels, state, {}), {"features": [["low"]]}, "x", "CRFEntityExtractor")
    message = Message("a, b!", tokens=tokenize("a, b!"))
    extractor.process(message)
    first = (math.exp(1.5) + math.exp(1.0) + 1) / (math.exp(1.5) + math.exp(1.0) + 2)
    second = (math.exp(1.2) + 2) / (math.exp(1.2) + 3)
    (entity,) = message.entities
    assert entity.pop("confidence") == pytest.approx(min(first, second))
    assert list(entity.items()) == [
        ("start", 0), ("end", 4), ("value", "a b"), ("entity", "city"), ("extractor", "CRFEntityExtractor"),
    ]  # fmt: skip


def test_without_bilou() -> None:
    """Without BILOU each labelled token is an entity of its own, with the probability of its label."""
    labels = ["O", "city", "B-odd"]
    data = writers.crfsuite(labels, {("0:low:a", "city"): 2.0, ("0:low:b", "B-odd"): 2.0}, {})
    message = Message("a a b c", tokens=tokenize("a a b c"))
    CrfEntities(data, {"features": [["low"]], "BILOU_flag": False}, "x").process(message)
    assert [(entity["value"], entity["entity"]) for entity in message.entities] == [
        ("a", "city"), ("a", "city"), ("b", "B-odd"),
    ]  # fmt: skip
    assert message.entities[0]["confidence"] == pytest.approx(math.exp(2) / (math.exp(2) + 2))


def test_texts_without_words() -> None:
    """A text without tokens has no entities."""
    message = Message("!!!")
    tagger(TAGS).process(message)
    assert message.entities == []


def test_bad_settings() -> None:
    """An even number of feature lists and a file of another kind are refused."""
    with pytest.raises(InvalidConfiguration, match="odd number"):
        tagger(TAGS, features=[["low"], ["low"]])
    with pytest.raises(UnreadableFile, match=r"some/crf\.pkl"):
        CrfEntities(b"nothing", {}, "some/crf.pkl")

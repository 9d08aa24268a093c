from __future__ import annotations

import re
from typing import Any

import pytest

from rasa_core_api.exceptions import InvalidConfiguration, InvalidTrainingData
from rasa_core_api.nlu.data import Lookup, TrainingData
from rasa_core_api.nlu.features import CountVectors, RegexFeatures, train_regex_features
from rasa_core_api.nlu.message import Message
from rasa_core_api.nlu.tokenizers import WhitespaceTokenizer


def message(text: str) -> Message:
    result = Message(text)
    WhitespaceTokenizer().process(result)
    return result


def trained(texts: list[str], **settings: Any) -> CountVectors:
    vectors = CountVectors(settings, {})
    vectors.train([message(text) for text in texts])
    return vectors


def counts(vectors: CountVectors, text: str) -> dict[str, float]:
    names = {column: feature for feature, column in vectors.vocabulary.items()}
    found = message(text)
    vectors.process(found)
    assert found.width == len(vectors.vocabulary)
    return {names[column]: value for column, value in found.counts.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello hello, I am here", ["hello", "hello", "am", "here"]),
        ("don't (stop)", ["don", "stop"]),
        ("10 apples, 10.000 pears", ["__NUMBER__", "apples", "__NUMBER__", "__NUMBER__", "pears"]),
        ("abc123 4", ["abc123", "__NUMBER__"]),
        ("Ça va", ["ça", "va"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    """Words have two characters or more, lower case, and numbers are all one word."""
    assert CountVectors({}, {}).features(message(text)) == expected


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({"token_pattern": r"(?u)\b\w+\b"}, "I don't", ["i", "don", "t"]),
        ({"lowercase": False}, "Hello You", ["Hello", "You"]),
        ({"strip_accents": "unicode"}, "Ça été", ["ca", "ete"]),
        ({"strip_accents": "unicode", "token_pattern": r"\S+"}, "ga\u0300", ["ga\u0300"]),
        ({"strip_accents": "unicode", "token_pattern": r"\S+"}, "ga\u0300 é", ["ga", "e"]),
        ({"strip_accents": "ascii"}, "Ça €50", ["ca", "__NUMBER__"]),
        ({"stop_words": "english"}, "what is the weather", ["weather"]),
        ({"stop_words": ["weather"]}, "the weather", ["the"]),
        ({"min_ngram": 1, "max_ngram": 2}, "go to it", ["go", "to", "it", "go to", "to it"]),
        (
            {"min_ngram": 2, "stop_words": "english", "max_ngram": 2},
            "rio de janeiro like this",
            ["rio janeiro", "janeiro like"],
        ),
        ({"min_ngram": 2, "max_ngram": 3, "stop_words": ["to"]}, "go to it now", ["go it", "it now", "go it now"]),
        ({"analyzer": "char", "min_ngram": 2, "max_ngram": 3}, "Ab 1", ["ab", "b ", " 1", "ab ", "b 1"]),
        ({"analyzer": "char_wb", "min_ngram": 2, "max_ngram": 4}, "a b", [" a", "a ", " a ", " b", "b ", " b "]),
        ({"token_pattern": r"(?u)\b\w+(?:'\w+)*\b"}, "don't you", ["don't", "you"]),
        ({"OOV_token": "OOV", "OOV_words": ["Blue"]}, "blue or red", ["oov", "or", "red"]),
    ],
)
def test_settings(settings: dict[str, Any], text: str, expected: list[str]) -> None:
    """Every setting changes the features as documented."""
    assert CountVectors(settings, {}).features(message(text)) == expected


@pytest.mark.parametrize("pattern", [r"(?u)\b\w\w+\b", r"(?u)[^\s]+", r"(?u)\b(\w)\w*\b", r"\w+"])
def test_long_texts_are_counted_whole(pattern: str) -> None:
    """Ten thousand characters are counted to the last word, also where numbers make them longer."""
    vectors = CountVectors({"token_pattern": pattern}, {})
    words = re.findall(pattern, "__NUMBER__ times " * 1500)
    assert vectors.features(message("1 times " * 1500)) == words and len(words) == 3000


def test_vocabulary_and_counts() -> None:
    """Columns follow the alphabet, and a message counts the words that are known."""
    vectors = trained(["good morning", "good night", "bye bye"])
    assert vectors.vocabulary == {"bye": 0, "good": 1, "morning": 2, "night": 3}
    assert counts(vectors, "good good bye stranger") == {"good": 2.0, "bye": 1.0}


def test_unknown_words() -> None:
    """Unknown words count as the OOV token if the data knows it; if it does not, the operator is told."""
    vectors = trained(["oov", "good morning"], OOV_token="oov")
    assert counts(vectors, "xyzzy plugh good") == {"oov": 2.0, "good": 1.0}
    unknown = CountVectors({"OOV_token": "oov"}, {})
    assert "'oov' does not occur" in unknown.train([message("good morning")])[0]
    assert counts(unknown, "xyzzy good") == {"good": 1.0}
    assert "no effect" in CountVectors({"OOV_words": ["a"]}, {}).train([message("good")])[0]


def test_limits_on_frequency() -> None:
    """Whole numbers count texts, fractions are shares of them, and the most frequent features stay."""
    texts = ["aa bb cc", "aa bb", "aa", "aa dd dd dd"]
    assert sorted(trained(texts, min_df=2).vocabulary) == ["aa", "bb"]
    assert sorted(trained(texts, max_df=0.5).vocabulary) == ["bb", "cc", "dd"]
    assert sorted(trained(texts, max_df=1).vocabulary) == ["cc", "dd"]
    assert sorted(trained(texts, max_features=2).vocabulary) == ["aa", "dd"]


def test_nothing_survives() -> None:
    """A data set without a single word gives an empty vocabulary and no columns."""
    vectors = trained(["a", "!"])
    assert vectors.vocabulary == {} and counts(vectors, "hello") == {}


def test_text_without_words_is_used_as_it_is() -> None:
    """Where the tokenizer found nothing the raw text is analysed."""
    vectors = CountVectors({"analyzer": "char"}, {})
    assert vectors.features(message("?!")) == ["?", "!"]


def test_token_pattern_that_stalls() -> None:
    """A token pattern that cannot be searched within bounds is refused by its key."""
    with pytest.raises(InvalidConfiguration, match="token_pattern"):
        CountVectors({"token_pattern": r"(\w+\s*)+\1"}, {})


def test_regexes_and_lookups() -> None:
    """The columns are regexes, then tables; each word knows whether a pattern's first match touches it."""
    features = train_regex_features(
        TrainingData([], [{"name": "zip", "pattern": "[0-9]{5}"}], [Lookup("city", ("New York", "Rome"))])
    )
    found = message("from 10115 to new york and 20095")
    features.process(found)
    assert found.counts == {0: 1.0, 1: 1.0} and found.width == 2
    assert [flags["zip"] for flags in found.pattern_flags] == [False, True, False, False, False, False, False]
    assert [flags["city"] for flags in found.pattern_flags] == [False, False, False, True, True, False, False]
    assert features.as_json() == [
        {"name": "zip", "pattern": "[0-9]{5}"},
        {"name": "city", "pattern": r"(?i)(\bNew\ York\b|\bRome\b)"},
    ]
    again = RegexFeatures(features.as_json())
    other = message("ROME, 10115")
    again.process(other)
    assert other.counts == {0: 1.0, 1: 1.0}


def test_every_match() -> None:
    """As in 0.15, every match marks words, and a match that marks none does not count."""
    patterns = [{"name": "zip", "pattern": "[0-9]{5}"}, {"name": "mark", "pattern": "!+"}]
    found = message("from 10115 to 20095 !!!")
    RegexFeatures(patterns, every_match=True).process(found)
    assert found.counts == {0: 1.0} and found.width == 2
    assert [flags["zip"] for flags in found.pattern_flags] == [False, True, False, True]
    features = train_regex_features(TrainingData(lookups=[Lookup("city", ("Rome",))]), every_match=True)
    found = message("rome or Rome")
    features.process(found)
    assert [flags["city"] for flags in found.pattern_flags] == [True, False, True]


def test_blocks_follow_each_other() -> None:
    """A second featurizer appends its columns behind the first one's."""
    found = message("rome rome")
    RegexFeatures([{"name": "city", "pattern": "rome"}, {"name": "no", "pattern": "xx"}]).process(found)
    trained(["paris rome"]).process(found)
    assert found.counts == {0: 1.0, 3: 2.0} and found.width == 4


def test_two_patterns_of_one_name() -> None:
    """The later pattern of a name decides what the words know of it."""
    found = message("rome")
    RegexFeatures([{"name": "x", "pattern": "rome"}, {"name": "x", "pattern": "paris"}]).process(found)
    assert found.pattern_flags == [{"x": False}] and found.counts == {0: 1.0}


def test_pattern_that_cannot_be_used() -> None:
    """A bad pattern is an error, or keeps an empty column where the caller takes note."""
    bad = [{"name": "bad", "pattern": "[a-"}, {"name": "good", "pattern": "a"}]
    with pytest.raises(InvalidTrainingData, match="'bad'"):
        RegexFeatures(bad)
    refused: list[InvalidTrainingData] = []
    features = RegexFeatures(bad, refused.append)
    found = message("a")
    features.process(found)
    assert found.counts == {1: 1.0} and len(refused) == 1

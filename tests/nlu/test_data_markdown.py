from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api.exceptions import InvalidTrainingData
from rasa_core_api.nlu.data import Example, Lookup, TrainingData
from rasa_core_api.nlu.data_markdown import MAX_LINE, looks_like_markdown, parse_example, read_markdown, write_markdown

EXAMPLE = """
<!-- a comment
over two lines --> ## intent:inform
- i am from [Berlin](city)
* my mail is [a@b.c](email:contact)
 + plain <!-- gone --!>text
not an item

##   synonym:New York
- NYC
- the big apple

## story: nothing
- Big A

## regex:zipcode
- [0-9]{5}
- [0-9]{4}

## lookup:currencies
- Yen
- USD

## lookup:streets
  data/lookup/streets.txt
"""


def entity(start: int, end: int, value: str, name: str) -> dict[str, object]:
    return {"start": start, "end": end, "value": value, "entity": name}


def test_sections() -> None:
    """Every section is read; unknown headers leave the section as it is, and comments vanish first."""
    data = read_markdown(EXAMPLE, "nlu.md")
    assert data.examples == [
        Example("i am from Berlin", "inform", (entity(10, 16, "Berlin", "city"),)),
        Example("my mail is a@b.c", "inform", (entity(11, 16, "contact", "email"),)),
        Example("plain text", "inform"),
    ]
    assert data.synonyms == {"a@b.c": "contact", "NYC": "New York", "the big apple": "New York", "Big A": "New York"}
    assert data.regexes == [{"name": "zipcode", "pattern": "[0-9]{5}"}, {"name": "zipcode", "pattern": "[0-9]{4}"}]
    assert data.lookups == [Lookup("currencies", ("Yen", "USD")), Lookup("streets", "data/lookup/streets.txt")]
    assert ["line 13: '## story: nothing' begins no section" in warning for warning in data.warnings] == [True]


@pytest.mark.parametrize(
    ("item", "text", "entities"),
    [
        ("[a](x) and [b](x:c:d)", "a and b", [entity(0, 1, "a", "x"), entity(6, 7, "c:d", "x")]),
        ("[New York] is big", "New York is big", None),
        ("[[a](x)", "[a", [entity(0, 2, "[a", "x")]),
        ("see [a](", "see [a](", []),
        ("[](x)", "[](x)", []),
    ],
)
def test_annotations(item: str, text: str, entities: list[dict[str, object]] | None) -> None:
    """Places refer to the text without markup; what is not an annotation stays as it is."""
    example = parse_example(item, " greet ")
    assert example.text == (text if entities is not None else item)
    assert list(example.entities) == (entities or []) and example.intent == "greet"


def test_doubtful_lines() -> None:
    """An unclosed annotation and a file name with a dash are warnings that name their line."""
    data = read_markdown("<!--\n\n-->\n## intent:a\n- go to [Rome](city\n\n## lookup:x\nlook-up.txt\n", "f.md")
    assert data.warnings == [
        "f.md, line 5: this looks like an entity, but is not closed",
        "f.md, line 8: rasa_nlu would cut the file name 'look-up.txt' to 'look'; the whole name is used",
    ]
    assert data.lookups == [Lookup("x", "look-up.txt")]


def test_headers_of_no_section() -> None:
    """A header that is none, whose items would silently go to the section before, is told with its line."""
    text = "# Texts\n- lost\n## intent:a\n- one\n### by heart\n## intent:\n- two\n- three\n## intent:b\n- four\n"
    data = read_markdown(text, "f.md")
    assert [example.intent for example in data.examples] == ["a", "a", "a", "b"]
    assert data.warnings == [
        "f.md, line 1: '# Texts' begins no section (intent, synonym, regex, lookup); the items after it are ignored",
        "f.md, line 6: '## intent:' begins no section (intent, synonym, regex, lookup); the items after it belong to "
        "'## intent:a'",
    ]


def test_endless_line() -> None:
    """A line that no person wrote is refused with its number."""
    with pytest.raises(InvalidTrainingData, match=r"f\.md, line 2: the line has"):
        read_markdown("## intent:a\n- " + "[" * MAX_LINE, "f.md")


def test_guess() -> None:
    """One header with exactly one blank makes a text markdown."""
    assert looks_like_markdown("x\n## regex:zip\n")
    assert not looks_like_markdown("##  intent:x\n") and not looks_like_markdown("# README\n## story: x\n")


NAMES = st.text(alphabet="abz_é", min_size=1, max_size=5)
WORDS = st.text(alphabet="abc é'.,0", min_size=1, max_size=6).filter(lambda text: text == text.strip())


@st.composite
def data_sets(draw: st.DrawFn) -> TrainingData:
    examples = []
    for intent in draw(st.lists(NAMES, unique=True, max_size=3)):
        for _ in range(draw(st.integers(1, 3))):
            text, entities = draw(WORDS), []
            for _ in range(draw(st.integers(0, 2))):
                surface = draw(WORDS)
                start = len(text) + 1
                value = draw(st.sampled_from([surface, "VALUE: 1"]))
                entities.append(entity(start, start + len(surface), value, draw(NAMES)))
                text += f" {surface}"
            examples.append(Example(text, intent, tuple(entities)))
    synonyms = {
        e.text[x["start"] : x["end"]]: "VALUE: 1"
        for e in examples
        for x in e.entities
        if x["value"] != e.text[x["start"] : x["end"]]
    }
    synonyms.update(draw(st.dictionaries(NAMES, NAMES.map(lambda name: f"{name}1"), max_size=3)))
    regexes = draw(
        st.lists(st.fixed_dictionaries({"name": NAMES, "pattern": st.sampled_from(["[0-9]+", "a|b"])}), max_size=3)
    )
    lookups = [
        Lookup(f"{name}{number}", tuple(draw(st.lists(NAMES, min_size=1, max_size=3))))
        for number, name in enumerate(draw(st.lists(NAMES, max_size=2)))
    ]
    data = TrainingData(examples, [], lookups, synonyms)
    data.regexes = sorted(regexes, key=lambda item: f"{item['name']}+{item['pattern']}")
    return data


@given(data_sets())
def test_round_trip(data: TrainingData) -> None:
    """What is written is read again as the same data."""
    assert read_markdown(write_markdown(data), "") == data


@pytest.mark.parametrize(
    "example",
    [
        Example("no intent"),
        Example("two\nlines", "a"),
        Example("[a](b)", "a"),
        Example("x]y", "a", (entity(0, 3, "x]y", "e"),)),
        Example("x", "a", ({**entity(0, 1, "x", "e"), "extractor": "ner_crf"},)),
        Example(" x", "a"),
    ],
)
def test_what_cannot_be_written(example: Example) -> None:
    """An example that would be read as another one is refused, not changed."""
    with pytest.raises(InvalidTrainingData, match="use JSON"):
        write_markdown(TrainingData([example]))

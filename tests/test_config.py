"""Tests of reading and writing YAML."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa_core_api import config
from rasa_core_api.config import dump_yaml, plain_value, read_yaml_file, read_yaml_text
from rasa_core_api.exceptions import InvalidConfiguration


def read(text: str, environ: dict[str, str] | None = None) -> Any:
    return read_yaml_text(text, "here.yml", environ)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True), ("On", True), ("y", True), ("NO", False), ("off", False), ("~", None), ("", None),
        ("012", 10), ("0x1F", 31), ("0b11", 3), ("1_000", 1000), ("1:30", 90), ("-190:20:30", -685230), ("+1", 1),
        ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("1:30.5", 90.5), (".inf", math.inf),
        ("-.INF", -math.inf), ("08", "08"), ("0o17", "0o17"), ("2018-01-01", "2018-01-01"), ("1:60", "1:60"),
        ("-", "-"), (".", "."), ("._", "._"), ("=", "="), ("1.2.3", "1.2.3"), ("+", "+"), ("9" * 500, "9" * 500),
        ("yEs", "yEs"), ("NaN", "NaN"), ("0b", "0b"), ("0x_", "0x_"), ("0", 0), ("-0", 0), ("0_", 0),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    """Unquoted scalars follow YAML 1.1 as the historical releases read them."""
    found = plain_value(text)
    assert found == value
    assert type(found) is type(value)


def test_files_that_have_no_size(tmp_path: Path) -> None:
    """A pipe is read like a file, as a shell hands over what a command says; what never ends is cut off."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"a: 1\n")
        os.close(writer)
        assert read_yaml_file(f"/dev/fd/{reader}") == {"a": 1}
    finally:
        os.close(reader)
    with pytest.raises(InvalidConfiguration, match="/dev/zero: larger than"):
        read_yaml_file("/dev/zero")
    with pytest.raises(InvalidConfiguration, match="null"):
        read_yaml_file("a\0b")


def test_not_a_number() -> None:
    """`.nan` is the one way to write it."""
    assert math.isnan(plain_value(".nan"))


def test_a_document() -> None:
    """Blocks, flows, quotes, anchors and merges make plain values; keys are texts."""
    text = """
    base: &base {a: 1, b: "no"}
    list: [yes, 'yes', !!str 5, 2018-01-01, *base]
    merged:
      a: 2
      <<: *base
      c: |
        two
        lines
    3: three
    on: key
    """
    assert read(text) == {
        "base": {"a": 1, "b": "no"},
        "list": [True, "yes", "5", "2018-01-01", {"a": 1, "b": "no"}],
        "merged": {"a": 2, "b": "no", "c": "two\nlines\n"},
        "3": "three",
        "on": "key",
    }


def test_aliases_share_nothing() -> None:
    """Changing one value does not change another that was written as its alias."""
    value = read("a: &x [1]\nb: *x\n")
    value["a"].append(2)
    assert value["b"] == [1]


def test_empty() -> None:
    """A file without content has no value."""
    assert read("") is None
    assert read("# nothing\n---\n") is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1\nb: : :\n", 2, "expected"),
        ("a: 1\nb: 2\na: 3\n", 3, "twice"),
        ("a: {url: http://x/}", 1, "in quotes"),
        ("a: 1\n--- b\n", 2, "second document"),
        ("a: !!python/object/apply:os.system [ls]", 1, "not allowed"),
        ("x:\n  - !!python/name:os.system ''", 2, "not allowed"),
        ("a: !!binary aGk=", 1, "not allowed"),
        ("a: !!int x", 1, "no int"),
        ("a: *b", 1, "stands for nothing"),
        ("a: &a [*a]", 1, "stands for nothing"),
        ("? [a]\n: b", 1, "key must be a text"),
        ("{a: {<<: 3}}", 1, "takes mappings"),
        ("[" * 5000, 1, "nested deeper"),
        ("\n".join(" " * n + "a:" for n in range(300)), 101, "nested deeper"),
    ],
)
def test_errors_name_their_line(text: str, line: int, words: str) -> None:
    """What cannot be read is refused by file, line and reason."""
    with pytest.raises(InvalidConfiguration, match=words) as caught:
        read(text)
    assert str(caught.value).startswith(f"here.yml, line {line}: ")
    assert caught.value.details["line"] == line


@pytest.mark.parametrize("text", ["a: \x00", "a: \ud800"])
def test_unreadable_characters(text: str) -> None:
    """Characters that YAML excludes are refused."""
    with pytest.raises(InvalidConfiguration):
        read(text)


def test_aliases_cannot_explode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aliases of aliases count with everything they repeat."""
    monkeypatch.setattr(config, "MAX_VALUES", 10_000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 12)]
    with pytest.raises(InvalidConfiguration, match="more than 10000 values"):
        read("\n".join(lines))


def test_environment() -> None:
    """Values take variables, quoted or not, and stay texts; keys and other dollars are left alone."""
    environ = {"HOST": "nlu", "PORT": "5000", "PASSWORD": "yes"}
    text = 'url: http://${HOST}:${PORT}/\npassword: "${PASSWORD}"\nport: ${PORT}\n${HOST}: $HOST\n'
    assert read(text, environ) == {"url": "http://nlu:5000/", "password": "yes", "port": "5000", "${HOST}": "$HOST"}
    assert read("a: ${HOST}") == {"a": "${HOST}"}


def test_environment_outside_quotes() -> None:
    """In a domain only plain values take variables: what a bot says may hold a price."""
    text = 'a: ${HOST}\nb: "${price}"\nc: \'${price}\'\nd: |\n  ${price}\n'
    found = read_yaml_text(text, "domain.yml", {"HOST": "nlu"}, quoted=False)
    assert found == {"a": "nlu", "b": "${price}", "c": "${price}", "d": "${price}\n"}


def test_environment_errors() -> None:
    """An unset variable is an error that shows no other variable's value."""
    with pytest.raises(InvalidConfiguration, match=r"line 2: the environment variable NOPE is not set") as caught:
        read("a: ${SECRET}\nb: ${NOPE}", {"SECRET": "hunter2"})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(InvalidConfiguration, match="names no environment variable"):
        read("a: ${A B}", {})


def test_files(tmp_path: Path) -> None:
    """A file is UTF-8, with or without a byte order mark; what is wrong with it names its path."""
    path = tmp_path / "x.yml"
    path.write_bytes("\ufeffa: ü 😀".encode())
    assert read_yaml_file(path) == {"a": "ü 😀"}
    path.write_bytes(b"a: b\nc: \xff")
    with pytest.raises(InvalidConfiguration, match=r"x\.yml, line 2: this is not UTF-8"):
        read_yaml_file(path)
    with pytest.raises(InvalidConfiguration, match=r"missing\.yml: No such file"):
        read_yaml_file(tmp_path / "missing.yml")


texts = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["yes", "n", "", "~", "1", "1e3", "- a", "a: b", "# x", "*a", "<<", "null", "=",
     "a\nb", " a ", "'", "%", "0x1", "a b", "a #b", "a:"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_is_written_is_read_back(value: object) -> None:
    """Writing and reading give the same value, of the same types."""
    again = read(dump_yaml(value))
    assert again == value
    assert repr(again) == repr(value) or isinstance(value, dict) or "{" in repr(value)


@given(values)
def test_others_read_what_is_written(value: object) -> None:
    """A common YAML reader agrees."""
    from ruamel.yaml import YAML

    reader = YAML(typ="safe", pure=True)
    assert reader.load(dump_yaml(value)) == value


def test_the_look_of_it() -> None:
    """Block style, sorted keys, quotes only where they are needed."""
    assert dump_yaml({"b": ["x", {"d": 1, "c": []}, [1, 2]], "a": {"k": "it's", "z": 1e300}}) == (
        "%YAML 1.1\n---\na:\n  k: \"it's\"\n  z: 1.0e+300\nb:\n- x\n- c: []\n  d: 1\n- - 1\n  - 2\n"
    )


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but a value or `InvalidConfiguration` comes out."""
    try:
        read(text, {})
    except InvalidConfiguration as error:
        assert str(error).startswith("here.yml")

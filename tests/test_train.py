"""The command line trains models that our server and the historical releases load."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rasa_core_api import evaluate
from rasa_core_api.domain import Domain
from rasa_core_api.events.reading import EventReader
from rasa_core_api.exceptions import UnsupportedModel
from rasa_core_api.interpreter import RegexInterpreter
from rasa_core_api.models.generation import Generation
from rasa_core_api.models.loader import load_generation
from rasa_core_api.policies.memoization import read_memory
from rasa_core_api.policies.policy import Policy
from rasa_core_api.trackers import Tracker
from rasa_core_api.train import main
from rasa_core_api.training.generator import Settings, generate
from rasa_core_api.training.story_reader import read_stories
from tests.training.helpers import CONFORMANCE, needs_recordings

PEERS = Path(os.environ.get("RASA_CORE_PEERS") or CONFORMANCE.parent / "peers")

DOMAIN = """
intents: [greet, bye, {order: {use_entities: true}}]
entities: [drink]
slots: {drink: {type: text}, sure: {type: bool}}
templates: {utter_greet: [{text: hello}], utter_bye: [{text: bye}]}
actions: [utter_greet, utter_bye, action_order]
"""
STORIES = """
## hello
* greet
  - utter_greet
> said_hello

## bye
> said_hello
* bye
  - utter_bye

## order
> said_hello
* order{"drink": "tea"}
  - action_order
  - slot{"sure": true}
"""
POLICIES = """
policies:
- name: MemoizationPolicy
  max_history: 3
- name: KerasPolicy
  epochs: 60
  max_history: 3
- name: FallbackPolicy
  core_threshold: 0.2
"""


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    (tmp_path / "domain.yml").write_text(DOMAIN)
    (tmp_path / "stories.md").write_text(STORIES)
    (tmp_path / "policies.yml").write_text(POLICIES)
    return tmp_path


def command(bot: Path, *more: str) -> list[str]:
    return ["-s", str(bot / "stories.md"), "-d", str(bot / "domain.yml"), "-o", str(bot / "model"), "--quiet", *more]


def walks(domain: Domain, count: int, seed: int = 5) -> list[list[dict[str, Any]]]:
    """Random event logs over the words of a domain."""
    random = Random(seed)
    actions = [name for name in domain.action_names if name not in domain.forms]
    logs = []
    for _ in range(count):
        log: list[dict[str, Any]] = [{"event": "action", "name": "action_listen", "timestamp": 1.0}]
        for _ in range(random.randint(1, 4)):
            chosen = [name for name in domain.entities if random.random() < 0.3]
            entities = [{"entity": name, "value": "x", "start": 0, "end": 1} for name in chosen]
            intent = {"name": random.choice(domain.intent_names), "confidence": random.choice([1.0, 0.9, 0.2])}
            data = {"intent": intent, "entities": entities, "text": "x"}
            log.append({"event": "user", "text": "x", "parse_data": data, "timestamp": 1.0})
            for _ in range(random.randint(0, 2)):
                log.append({"event": "action", "name": random.choice(actions), "timestamp": 1.0})
            if random.random() < 0.7:
                log.append({"event": "action", "name": "action_listen", "timestamp": 1.0})
        logs.append(log)
    return logs


def beginnings(stories: Path, domain: Domain, count: int, seed: int = 5) -> list[list[dict[str, Any]]]:
    """Event logs that follow stories up to some point."""
    random = Random(seed)
    files = read_stories([stories], domain.release, RegexInterpreter(domain.release).parse_sync)
    dialogues = generate(files.steps, domain, Settings(augmentation_factor=0)).dialogues
    logs = []
    for _ in range(count):
        events = random.choice(dialogues).events()
        logs.append([event.as_dict() for event in events[: random.randint(1, len(events))]])
    return logs


def predicted(model: Generation, log: list[dict[str, Any]]) -> tuple[list[float], str | None]:
    tracker = Tracker("s", model.domain)
    tracker.extend(EventReader(lambda: 1.0, lambda: "id").read_list(log))
    choice = model.ensemble.choose(tracker)
    return choice.normalised(model.release.normalisation), choice.policy


def policy_of(model: Generation, index: int) -> Policy:
    return model.ensemble.policies[index]


@pytest.mark.parametrize("release", ["0.11.12", "0.14.5"])
def test_trains_and_serves(bot: Path, release: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A trained model loads in our server under the rules of its release and knows its stories."""
    assert main(command(bot, "-c", str(bot / "policies.yml"), "--for-release", release, "--augmentation", "5")) == 0
    model = load_generation(bot / "model")
    assert model.release.name == release.rpartition(".")[0]
    assert [policy.name for policy in model.ensemble.policies] == ["MemoizationPolicy", "KerasPolicy", "FallbackPolicy"]
    heard = {"event": "user", "text": "x", "parse_data": {"intent": {"name": "greet"}, "entities": []}}
    scores, policy = predicted(model, [{"event": "action", "name": "action_listen"}, heard])
    assert model.domain.action_names[scores.index(max(scores))] == "utter_greet"
    assert policy == "policy_0_MemoizationPolicy"
    report = json.loads((bot / "model" / "training_report.json").read_text())
    assert report["stories"] == 3 and report["policies"][1]["accuracy"] == 1.0
    assert "wrote the model" in capsys.readouterr().out


def test_logistic_regression(bot: Path) -> None:
    """A trained classifier loads without any pickle and knows its stories."""
    (bot / "policies.yml").write_text("policies: [{name: SklearnPolicy, max_history: 2}]")
    assert main(command(bot, "-c", str(bot / "policies.yml"), "--augmentation", "5")) == 0
    model = load_generation(bot / "model")
    log = [{"event": "action", "name": "action_listen"}]
    for intent, action in (("greet", "utter_greet"), ("bye", "utter_bye")):
        log.append({"event": "user", "text": "x", "parse_data": {"intent": {"name": intent}, "entities": []}})
        scores, policy = predicted(model, log)
        assert model.domain.action_names[scores.index(max(scores))] == action and policy == "policy_0_SklearnPolicy"
        log += [{"event": "action", "name": action}, {"event": "action", "name": "action_listen"}]
    path = bot / "model" / "policy_0_SklearnPolicy" / "sklearn_model.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UnsupportedModel, match=r"sklearn_model\.npz"):
        load_generation(bot / "model")


def test_flat_options(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The options of 0.11 become policies; what they are called now is said."""
    options = ("--history", "2", "--epochs", "5", "--nlu_threshold", "0.4", "--batch_size", "8", "--augmentation", "0")
    assert main(command(bot, *options)) == 0
    assert "policy file" in capsys.readouterr().err
    metadata = json.loads((bot / "model" / "metadata.json").read_text())
    names = [path.rpartition(".")[2] for path in metadata["policy_names"]]
    assert names == ["FallbackPolicy", "MemoizationPolicy", "KerasPolicy", "MappingPolicy"]
    assert metadata["max_histories"] == [None, 2, 2, 5]
    fallback = json.loads((bot / "model" / "policy_0_FallbackPolicy" / "fallback_policy.json").read_text())
    assert fallback["nlu_threshold"] == 0.4
    load_generation(bot / "model")


def test_replaces_whole_models(bot: Path) -> None:
    """A model is replaced as a whole, with nothing of the old one left, and nothing lies beside it afterwards."""
    assert main(command(bot, "-c", str(bot / "policies.yml"), "--dump_stories")) == 0
    assert "## hello > bye" in (bot / "model" / "stories.md").read_text()
    (bot / "policies.yml").write_text("policies: [{name: MemoizationPolicy}]")
    assert main(command(bot, "-c", str(bot / "policies.yml"))) == 0
    assert sorted(entry.name for entry in (bot / "model").iterdir()) == [
        "domain.json",
        "domain.yml",
        "metadata.json",
        "policy_0_MemoizationPolicy",
        "training_data.npz",
        "training_report.json",
    ]
    assert sorted(entry.name for entry in bot.iterdir()) == ["domain.yml", "model", "policies.yml", "stories.md"]


def test_interrupted_while_replacing(bot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C between taking the old model away and putting the new one there leaves the old one."""
    policies = ["-c", str(bot / "memory.yml"), "--quiet"]
    (bot / "memory.yml").write_text("policies: [{name: MemoizationPolicy}]")
    assert main(command(bot, *policies)) == 0
    before = sorted(path.name for path in bot.iterdir())
    rename = os.rename

    def interrupt(old: Path, new: Path) -> None:
        if old.name.endswith(".new"):
            raise KeyboardInterrupt
        rename(old, new)

    monkeypatch.setattr(os, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main(command(bot, *policies))
    assert sorted(path.name for path in bot.iterdir()) == before
    assert load_generation(bot / "model").ensemble.policies


def test_repeatable(bot: Path) -> None:
    """The same stories give the same model, byte for byte, but for times."""
    found = []
    for _ in range(2):
        assert main(command(bot, "-c", str(bot / "policies.yml"), "--augmentation", "20")) == 0
        files = sorted((bot / "model").rglob("*.*"))
        timed = ("metadata.json", "training_report.json", "keras_model.h5")
        found.append({path.name: path.read_bytes() for path in files if path.name not in timed and path.is_file()})
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--history", "3", "-c", "policies.yml"], "--history cannot be combined with a policy file"),
        (["-c", "none.yml"], "none.yml"),
    ],
)
def test_mistakes(bot: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake ends with status 1 and one line that says what and where."""
    arguments = [str(bot / word) if word.endswith(".yml") else word for word in more]
    assert main(command(bot, *arguments)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert not (bot / "model").exists()


def test_prices_in_texts(bot: Path) -> None:
    """What a bot says may hold `${price}`: only values outside quotes take variables, as it was."""
    (bot / "domain.yml").write_text(DOMAIN.replace("{text: bye}", '{text: "that is ${price}"}'))
    assert main(command(bot, "-c", str(bot / "policies.yml"), "--augmentation", "0")) == 0
    assert load_generation(bot / "model").domain.templates["utter_bye"][0]["text"] == "that is ${price}"


def test_usage(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong usage ends with status 2."""
    for arguments in (["-s", "x"], ["--core", "m"], command(bot, "--url", "http://x/")):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    capsys.readouterr()


def test_compare(bot: Path) -> None:
    """Comparing trains every policy file with fewer and fewer stories."""
    (bot / "a.yml").write_text("policies: [{name: MemoizationPolicy}]")
    (bot / "b.yml").write_text("policies: [{name: FallbackPolicy}]")
    files = ["-c", str(bot / "a.yml"), str(bot / "b.yml")]
    options = ["--percentages", "0", "50", "--runs", "2", "--augmentation", "0"]
    assert main(["compare", *command(bot, *files, *options)]) == 0
    assert json.loads((bot / "model" / "num_stories.json").read_text()) == [3, 1]
    models = sorted(path.parent.relative_to(bot / "model").as_posix() for path in bot.rglob("metadata.json"))
    assert models == [f"run_{run}/{name}{n}" for run in (1, 2) for name in ("FallbackPolicy", "MemoizationPolicy")
                      for n in (1, 2)]
    assert main(["compare", *command(bot, "-c", str(bot / "policies.yml"))]) == 1


def test_compare_policies_of_one_name(bot: Path) -> None:
    """Two settings of one policy are told apart by the names of their files."""
    for name, history in (("short1", 1), ("long", 5)):
        (bot / f"{name}.yml").write_text(f"policies: [{{name: MemoizationPolicy, max_history: {history}}}]")
    files = ["-c", str(bot / "short1.yml"), str(bot / "long.yml")]
    options = ["--percentages", "0", "--runs", "1", "--augmentation", "0", "--no_check"]
    assert main(["compare", *command(bot, *files, *options)]) == 0
    compared = str(bot / "results")
    arguments = ["compare", "-s", str(bot / "stories.md"), "--core", str(bot / "model"), "-o", compared, "--quiet"]
    assert evaluate.main(arguments) == 0
    results = json.loads((bot / "results" / "results.json").read_text())
    assert sorted(results) == ["MemoizationPolicy-long", "MemoizationPolicy-short1"]
    assert main(["compare", *command(bot, *files[:2], files[1], *options)]) == 1


@pytest.mark.peer
@pytest.mark.parametrize(
    ("version", "name", "augmentation"), [("0.11.12", "cafe", 20), ("0.14.5", "cafe", 20), ("0.14.5", "hotel", 20)]
)
@needs_recordings
def test_historical_release_predicts_the_same(version: str, name: str, augmentation: int, tmp_path: Path) -> None:
    """A model written for a release loads in that release and predicts the same."""
    python = PEERS / f"rasa-core-{version}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no {python}: set RASA_CORE_PEERS to where the historical releases are installed")
    source = CONFORMANCE / "bots" / name
    policies = {"0.11.12": POLICIES}.get(version, (source / "policies-0.14.yml").read_text())
    (tmp_path / "policies.yml").write_text(policies)
    arguments = ["-s", str(source / "stories.md"), "-d", str(source / "domain.yml"), "-o", str(tmp_path / "model")]
    options = ["-c", str(tmp_path / "policies.yml"), "--for-release", version, "--augmentation", str(augmentation)]
    assert main([*arguments, *options, "--quiet"]) == 0
    model = load_generation(tmp_path / "model")
    logs = [*walks(model.domain, 150), *beginnings(source / "stories.md", model.domain, 100)]
    (tmp_path / "logs.json").write_text(json.dumps(logs))
    script = Path(__file__).with_name("training") / "peer_predictions.py"
    subprocess.run(
        [str(python), str(script), str(tmp_path / "model"), str(tmp_path / "logs.json"), str(tmp_path / "out.json")],
        check=True, capture_output=True, timeout=120,
    )
    answers = json.loads((tmp_path / "out.json").read_text())
    worst, policies_seen = 0.0, set()
    for log, (scores, policy) in zip(logs, answers, strict=True):
        ours, our_policy = predicted(model, log)
        assert our_policy == policy, log
        policies_seen.add(policy)
        worst = max(worst, max(abs(a - b) for a, b in zip(ours, scores, strict=True)))
    print(f"{version} {name}: {len(logs)} predictions, largest difference {worst:.2g}, {sorted(policies_seen)}")
    assert worst < 1e-5
    assert any("Memoization" in (policy or "") for policy in policies_seen) and len(policies_seen) > 2


@pytest.mark.conformance
@needs_recordings
def test_same_turns_as_recorded(tmp_path: Path) -> None:
    """The command line writes the turns that 0.14.5 wrote."""
    source = CONFORMANCE / "bots" / "cafe"
    (tmp_path / "p.yml").write_text("policies: [{name: MemoizationPolicy, max_history: 3}]")
    stories, domain = str(source / "stories.md"), str(source / "domain.yml")
    assert main(["-s", stories, "-d", domain, "-o", str(tmp_path / "m"), "-c", str(tmp_path / "p.yml"), "--quiet"]) == 0
    ours = read_memory(tmp_path / "m" / "policy_0_MemoizationPolicy" / "memorized_turns.json")[0]
    recorded = CONFORMANCE / "models" / "rasa-core-0.14.5" / "cafe-full" / "policy_0_MemoizationPolicy"
    assert len(ours) == 68 and ours == read_memory(recorded / "memorized_turns.json")[0]


def test_checks_first(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mistakes are told a line each before training; what the original could not train stops it."""
    stories, policies = bot / "stories.md", ["-c", str(bot / "policies.yml")]
    stories.write_text(STORIES + "\n## other\n* greet\n  - utter_bye\n")
    assert main(command(bot, *policies)) == 0
    told = capsys.readouterr().err
    assert "[contradiction]" in told and "'utter_bye' in 'other'" in told
    (bot / "domain.yml").write_text(DOMAIN.replace("intents: [greet,", "intents: [spare, greet,"))
    stories.write_text(STORIES + "\n## other\n* gret\n  - utter_bye\n  - slot{\"drnk\": 1}\n")
    assert main(command(bot, *policies)) == 0
    told = capsys.readouterr().err
    assert "did you mean 'greet'?" in told and "did you mean 'drink'?" in told
    stories.write_text(STORIES + "\n## other\n* greet\n  - utter_by\n")
    assert main(command(bot, *policies, "-o", str(bot / "second"))) == 1
    told = capsys.readouterr().err
    assert "did you mean 'utter_bye'?" in told and "[unused-intent]" in told and "--no_check" in told
    assert not (bot / "second").exists()
    assert main(command(bot, *policies, "--no_check", "-o", str(bot / "second"))) == 1
    assert "'utter_by', which is no action of the domain" in capsys.readouterr().err

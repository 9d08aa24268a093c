"""Models are evaluated on stories: figures, a page, the failed stories, and comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from rasa_core_api import evaluate, train
from rasa_core_api.exceptions import EvaluationFailed
from rasa_core_api.interpreter import RegexInterpreter
from rasa_core_api.models.loader import load_generation
from rasa_core_api.training.evaluation import Evaluation, _entity_pairs, evaluate_stories
from rasa_core_api.training.story_reader import StoryReader
from tests.fakes import Bot
from tests.samples import domain
from tests.training.helpers import CONFORMANCE, needs_recordings

DOMAIN = "intents: [a, b]\nactions: [u1, u2]\n"
STORIES = "## one\n* a\n- u1\n\n## two\n* b\n- u2\n* a\n- u1\n"


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    (tmp_path / "domain.yml").write_text(DOMAIN)
    (tmp_path / "stories.md").write_text(STORIES)
    (tmp_path / "policies.yml").write_text("policies: [{name: MemoizationPolicy, max_history: 3}]")
    stories, domain, policies = (str(tmp_path / name) for name in ("stories.md", "domain.yml", "policies.yml"))
    files = ["-s", stories, "-d", domain, "-c", policies]
    assert train.main([*files, "-o", str(tmp_path / "model"), "--augmentation", "0", "--quiet"]) == 0
    return tmp_path


def run(bot: Path, stories: str, *more: str) -> int:
    (bot / "test.md").write_text(stories)
    files = ["-s", str(bot / "test.md"), "--core", str(bot / "model"), "-o", str(bot / "results")]
    return evaluate.main([*files, "--quiet", *more])


def test_all_right(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model knows the stories it was trained on; the files say so."""
    assert run(bot, STORIES) == 0
    assert "2 of 2" in capsys.readouterr().out
    assert (bot / "results" / "failed_stories.md").read_text() == "<!-- All stories passed -->\n"
    result = json.loads((bot / "results" / "story_confmat.json").read_text())
    assert result["accuracy"] == result["f1"] == result["precision"] == 1.0
    assert result["in_training_data_fraction"] == 1.0 and result["is_end_to_end_evaluation"] is False
    assert [item["action"] for item in result["actions"]] == ["u1", "action_listen", "u2", *["action_listen", "u1"],
                                                              "action_listen"]
    assert result["actions"][0]["policy"] == "policy_0_MemoizationPolicy"


def test_mistakes(bot: Path) -> None:
    """A wrong prediction is shown where it happened, and the story goes on from what is right."""
    assert run(bot, "## three <b>\n* a\n- u2\n* b\n- u2\n") == 0
    failed = (bot / "results" / "failed_stories.md").read_text()
    assert "    - u2   <!-- predicted: u1 -->\n" in failed
    result = json.loads((bot / "results" / "story_confmat.json").read_text())
    assert [item["predicted"] for item in result["actions"]][:2] == ["u1", "action_listen"]
    assert 0 < result["accuracy"] < 1
    page = (bot / "results" / "story_confmat.html").read_text()
    assert "three &lt;b&gt;" in page and "<svg" in page
    assert "<tr><td>u2</td><td>u1</td><td>1</td></tr>" in page, "the most common mistakes"
    assert '<span class="wrong">    - u2   &lt;!-- predicted: u1 --&gt;</span>' in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "the page needs no network"


def test_fail_on_errors(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first wrong prediction can be an error, for continuous integration."""
    assert run(bot, "## three\n* a\n- u2\n", "--fail_on_prediction_errors") == 1
    assert "story 'three'" in capsys.readouterr().err
    assert run(bot, STORIES, "--fail_on_prediction_errors") == 0


def test_old_output_names(bot: Path) -> None:
    """The file names of 0.11 lead to a page of that name."""
    options = ["-o", str(bot / "out" / "story_confmat.pdf"), "--failed", str(bot / "failed.md")]
    assert run(bot, STORIES, *options) == 0
    assert (bot / "out" / "story_confmat.html").exists() and (bot / "failed.md").exists()


def test_usage(bot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An end-to-end evaluation without NLU is a wrong usage, a missing model an error."""
    with pytest.raises(SystemExit) as caught:
        run(bot, STORIES, "--e2e")
    assert caught.value.code == 2
    assert evaluate.main(["-s", str(bot / "stories.md"), "--core", str(bot / "none"), "-u", "nlu"]) == 1
    assert "-u/--nlu and --endpoints change nothing without --e2e" in capsys.readouterr().err


def test_compare(bot: Path) -> None:
    """Models that were trained with fewer and fewer stories are compared on the same ones."""
    (bot / "fallback.yml").write_text("policies: [{name: FallbackPolicy}]")
    files = ["-s", str(bot / "stories.md"), "-d", str(bot / "domain.yml"), "-o", str(bot / "compared"), "--quiet"]
    options = ["--percentages", "0", "60", "--runs", "2", "--augmentation", "0"]
    configurations = ["-c", str(bot / "policies.yml"), str(bot / "fallback.yml")]
    assert train.main(["compare", *files, *options, *configurations]) == 0
    arguments = ["compare", "-s", str(bot / "stories.md"), "--core", str(bot / "compared"), "-o", str(bot / "results")]
    assert evaluate.main(arguments) == 0
    results = json.loads((bot / "results" / "results.json").read_text())
    assert [row[0] for row in results["MemoizationPolicy"]] == [2, 2]
    assert results["FallbackPolicy"] == [[0, 0], [0, 0]]
    assert all(row[1] < 2 for row in results["MemoizationPolicy"])
    assert "<svg" in (bot / "results" / "model_comparison_graph.html").read_text()


def test_figures() -> None:
    """Precision and recall are per label, the means weighted by support."""
    evaluation = Evaluation(False, pairs=[("a", "a"), ("a", "a"), ("a", "b"), ("b", "b")])
    rows = {row.label: row for row in evaluation.rows()}
    assert (rows["a"].precision, rows["a"].recall, rows["a"].support) == (1.0, 2 / 3, 3)
    assert (rows["b"].precision, rows["b"].recall, rows["b"].support) == (0.5, 1.0, 1)
    assert evaluation.weighted(lambda row: row.precision) == pytest.approx(0.875)
    assert evaluation.accuracy == 0.75 and "avg / total" in evaluation.report()


def test_entities() -> None:
    """Entities are compared by place and value; missing and superfluous ones count as wrong."""
    rome = {"entity": "city", "value": "rome", "start": 0, "end": 4}
    assert _entity_pairs([rome], [dict(rome)]) == [("city", "city")]
    assert _entity_pairs([rome], [{**rome, "entity": "name"}]) == [("city", "name")]
    assert _entity_pairs([rome], [{**rome, "end": 5}]) == [("city", "None"), ("None", "city")]


@pytest.mark.conformance
@needs_recordings
@pytest.mark.parametrize(("model", "stories"), [
    ("rasa-core-0.14.5/hotel-full", "hotel"), ("rasa-core-0.14.5/cafe-full", "cafe"),
    ("rasa-core-0.11.12/cafe-full", "cafe"), ("rasa-core-0.13.8/hotel-full", "hotel"),
])
def test_historical_models(model: str, stories: str, tmp_path: Path) -> None:
    """Models of the releases know all stories they were trained on, forms that are left included."""
    path = CONFORMANCE / "bots" / stories / "stories.md"
    arguments = ["-s", str(path), "--core", str(CONFORMANCE / "models" / model), "-o", str(tmp_path)]
    assert evaluate.main([*arguments, "--fail_on_prediction_errors"]) == 0


def test_end_to_end(bot: Path) -> None:
    """With messages in the stories, wrong intents and entities count as mistakes and are shown."""
    model = load_generation(bot / "model")
    reader = StoryReader(model.release, RegexInterpreter(model.release).parse_sync, e2e=True)
    reader.read_text("## one\n* a: hello\n- u1\n## two\n* b: what a [day](when)\n- u2\n", "stories")

    async def parse(text: str) -> dict[str, Any]:
        return {"intent": {"name": "a", "confidence": 0.9}, "entities": [], "text": text}

    results: list[Evaluation] = []
    work = evaluate_stories(reader.files.steps, model.domain, model.ensemble, parse=parse)
    Deferred.fromCoroutine(work).addCallback(results.append)
    (evaluation,) = results
    assert evaluation.correct_stories == 1 and evaluation.as_dict()["is_end_to_end_evaluation"] is True
    assert ("b", "a") in evaluation.pairs and ("when", "None") in evaluation.pairs
    (failed,) = evaluation.failed
    assert "* b: what a [day](when)   <!-- predicted: a: what a day -->" in failed
    assert "    - u2   <!-- predicted: u1 -->" in failed


def test_over_http() -> None:
    """A running server evaluates the stories that it is sent; mistakes in them are named by line."""
    bot = Bot(domain("0.11"), {"greet": ["utter_hi"]})
    result = bot.wait(bot.agent.evaluate("## s\n* greet\n- utter_hi\n", False))
    assert [item["predicted"] for item in result["actions"]] == ["utter_hi", "action_listen"]
    assert set(result) == {
        "report", "precision", "f1", "accuracy", "actions", "in_training_data_fraction", "is_end_to_end_evaluation",
    }  # fmt: skip
    with pytest.raises(EvaluationFailed, match="stories:1: expected '## story name'"):
        bot.wait(bot.agent.evaluate("* greet\n", False))

"""Run by a historical release: loads a model and prints what it predicts after each of some event logs."""

import json
import logging
import sys
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

from rasa_core.agent import Agent  # type: ignore  # noqa: E402
from rasa_core.events import Event  # type: ignore  # noqa: E402
from rasa_core.trackers import DialogueStateTracker  # type: ignore  # noqa: E402

agent = Agent.load(sys.argv[1])
with open(sys.argv[2]) as file:
    logs = json.load(file)
answers = []
for events in logs:
    tracker = DialogueStateTracker("s", agent.domain.slots)
    for event in events:
        tracker.update(Event.from_parameters(event))
    scores, policy = agent.policy_ensemble.probabilities_using_best_policy(tracker, agent.domain)[:2]
    answers.append([[float(score) for score in scores], policy])
with open(sys.argv[3], "w") as file:
    json.dump(answers, file)

"""What a dataset on a neuPrint server is, for a person. Asks no network, and knows nothing of tokens."""

from __future__ import annotations

from emcatalog.describe.page import Description, Part, doubt_of, said_of
from emcatalog.entries.neuprint import NeuprintArguments


def describe_neuprint(arguments: NeuprintArguments) -> Description:
    """The service of an entry."""
    model = arguments.neuprint
    brief = {"server": model.server, "dataset": model.dataset}
    facts = (*doubt_of(model), *brief.items(), *said_of(model))
    sentence = f"{model.dataset} at {model.server}"
    part = Part("neuprint", "a service", sentence, brief, facts, is_confirmed=model.unconfirmed is None)
    return Description("service", (part,), size=("a service", model.dataset), brief=model.dataset)

"""Alert rules, dashboard and guide name existing metrics and labels."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from iidq.observability import metrics
from iidq.observability.exposition import exposition
from iidq.queue.job import JobType
from iidq.web.routes.scrape import QueueGauges
from iidq.webhooks.delivery import DeliveryState
from tests.exposition_format import samples
from tests.queue_health import queue_health

DOCS = Path(__file__).parents[3] / "docs"
DEPTH = queue_health(upkeep_age_seconds=1.0)
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_SELECTOR = re.compile(r"\b((?:iidq|process)_\w+)(?:\{([^}]*)\})?")


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, set[str]]]:
    """Return every sample's name with labels and values, after a call of each function of ``metrics``."""
    metrics.request_served("GET", "/api/verification-jobs/{job_id}", 200, 0.01)
    metrics.upload_hashed(1, 0.1)
    for limit in ("submit", "read"):
        metrics.rate_limited(limit)
    metrics.synchronous_run("completed")
    metrics.synchronous_run("failed")
    metrics.synchronous_run("refused")
    metrics.synchronous_fallback()
    metrics.worker_starts(3, lambda: 1)
    metrics.attempts_ended(
        [("completed", 0.1), ("failed", 0.1), ("retried", 0.1), ("released", 0.1), ("cancelled", 0.1)]
    )
    metrics.lease_lost(0.1)
    metrics.leases_expired(1)
    metrics.listening("jobs", True)
    metrics.listening("changes", True)
    metrics.redis_changed("up", 1_800_000_000.0)
    metrics.redis_command("answered")
    metrics.redis_read("jobs", "hit")
    for state in DeliveryState:
        metrics.webhook_tried(state, "fetch.not_found: no")
    for kind in JobType:
        metrics.verdict_found(kind.value, "OK")
    for step in get_args(metrics.Step):
        metrics.step_ended(step, 0.1)
    for upstream in get_args(metrics.Upstream):
        metrics.upstream_asked(upstream)
    found: dict[str, dict[str, set[str]]] = {}
    for sample in samples(exposition("", [QueueGauges(DEPTH)])[0].decode()):
        labels = found.setdefault(sample.name, defaultdict(set))
        for name, value in sample.labels.items():
            labels[name].add(value)
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every PromQL expression of both files, with its place."""
    rules = yaml.safe_load((DOCS / "monitoring/alerts.yml").read_text("utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def dashboard() -> dict[str, Any]:
    board: dict[str, Any] = json.loads((DOCS / "monitoring/grafana-dashboard.json").read_text("utf-8"))
    return board


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_expressions_name_what_exists(where: str, expression: str, known: dict[str, dict[str, set[str]]]) -> None:
    """Each metric, each matched or grouped label, and each matched value can occur."""
    selectors = _SELECTOR.findall(expression)
    assert selectors, where
    for name, matchers in selectors:
        assert name in known, (where, name)
        for label, _, pattern in _MATCHER.findall(matchers):
            if pattern == "$job":
                continue
            assert label in known[name], (where, name, label)
            for value in pattern.split("|"):
                # A status is any answered status; "5.." is a pattern of statuses.
                assert label == "status" or value in known[name][label], (where, name, label, value)
    labels = set().union(*(known[name].keys() for name, _ in selectors))
    for grouped in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= labels, where


def test_legends_and_texts_name_labels_of_their_expression() -> None:
    """A legend or an alert's text shows only labels kept by the expression."""
    targets = [
        (target["expr"], target["legendFormat"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ]
    rules = yaml.safe_load((DOCS / "monitoring/alerts.yml").read_text("utf-8"))
    texts = [
        (rule["expr"], rule["annotations"]["summary"].replace("$labels.", ""))
        for group in rules["groups"]
        for rule in group["rules"]
    ]
    for expression, text in [*targets, *texts]:
        kept = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        assert set(re.findall(r"\{\{ ?(\w+) ?\}\}", text)) <= kept | {"instance"}, expression


def test_alerts_are_named_once_and_explained() -> None:
    """Each rule has a separate name, a severity and a summary; each alert in the guide is a rule."""
    rules = yaml.safe_load((DOCS / "monitoring/alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    guide = (DOCS / "monitoring.md").read_text("utf-8")
    for name in set(re.findall(r"`(Iidq\w+)`", guide)):
        assert name in names
    assert {rule["labels"]["severity"] for rule in rules} == {"page", "ticket"}
    assert all(rule["annotations"]["summary"] for rule in rules)


def test_the_guide_lists_every_metric(known: dict[str, dict[str, set[str]]]) -> None:
    """The guide's table has each metric with its labels, and no other."""
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known if name.startswith("iidq_")}
    listed: dict[str, set[str]] = {}
    for line in (DOCS / "monitoring.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3:
            for name in re.findall(r"`(iidq_\w+)`", cells[0]):
                listed[name] = set(re.findall(r"`(\w+)`", cells[1]))
    assert listed.keys() == families
    for name, labels in listed.items():
        really = next(found for sample, found in known.items() if sample.removesuffix("_bucket") == name)
        assert labels == really.keys() - {"le"}, name


def test_panels_do_not_overlap() -> None:
    """Panels of the dashboard do not overlap, and have different ids."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells

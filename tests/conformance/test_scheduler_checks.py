"""The checks find what is wrong with a scheduler, name the rule, and show a small case."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from framework.conformance import Budget, Finding
from framework.conformance.checks import scheduler as scheduler_checks
from framework.conformance.kit import model_run, serve
from framework.conformance.kit.finding import Violation
from framework.conformance.run import run_checks
from framework.interfaces.scheduler import Scheduler
from tests.conformance import broken_schedulers as broken

BUDGET = Budget(num_examples=25, search_s=3.0, shrink_s=1.5)


def findings(scheduler: type[Scheduler], *rules: str) -> dict[str, Finding]:
    checks = scheduler_checks.checks(OmegaConf.create({"name": "mine"}), scheduler, BUDGET)
    found = run_checks(check for check in checks if check.rule in (rules or scheduler_checks.RULES))
    return {finding.rule: finding for finding in found}


@pytest.mark.parametrize(
    ("scheduler", "rule", "says"),
    [
        (broken.NeverAdmitsLongPrompts, serve.ENDS, "NeverAdmitsLongPrompts planned nothing .* 1 waiting"),
        (broken.WaitsForRoomForEver, serve.ENDS, "did not return within"),
        (
            broken.PreemptsInTurn,
            serve.ENDS,
            r"PreemptsInTurn.* request \d+ was preempted",
        ),
        (broken.AddsAndPreempts, serve.ENDS, r"AddsAndPreempts.* request \d+ was preempted"),
        (broken.DividesByZero, serve.RAISES, r"DividesByZero \(.*broken_schedulers\.py:\d+\): ZeroDivisionError"),
        (broken.PreemptsTheWaiting, serve.CALLS, r"plan.preempt\(request \d+\): it is not running"),
        (broken.AddsWhoHasEnded, serve.CALLS, r"plan.add\(request \d+\): it has ended"),
        (broken.AddsTwice, serve.CALLS, r"AddsTwice.*plan.add\(request \d+\): it is in this plan already"),
        (broken.AddsZeroTokens, serve.CALLS, r"plan.add\(request \d+, max_tokens=0\)"),
        (broken.RaisesItsBudget, serve.BUDGETS, r"a step of \d+ tokens"),
    ],
)
def test_what_is_wrong_is_named(
    scheduler: type[Scheduler], rule: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_LIMIT_S", 0.3)
    finding = findings(scheduler)[rule]
    assert finding.status == "fails"
    assert re.search(says, finding.detail), finding.detail
    assert "KV cache of" in finding.detail


def test_the_case_is_small() -> None:
    """Three requests have to wait at once, so three is the least; everything else about them shrinks to nothing."""
    found = findings(broken.DividesByZero)
    requests = re.findall(r"^request \d+:.*$", found[serve.RAISES].detail, re.MULTILINE)
    assert len(requests) == 3
    assert all("1 output tokens of at most 1," in request for request in requests)
    others = [finding for rule, finding in found.items() if rule != serve.RAISES]
    assert {finding.status for finding in others} == {"holds"}


def test_writing_to_a_request_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_LIMIT_S", 0.3)
    assert "fails" in {finding.status for finding in findings(broken.WritesToRequests).values()}


def test_nothing_is_wrong() -> None:
    found = findings(broken.Plain)
    assert {finding.status for finding in found.values()} == {"holds"}
    assert set(found) == set(scheduler_checks.RULES)


def test_plans_that_differ_between_two_runs() -> None:
    found = findings(broken.UsesGlobalRandomness, scheduler_checks.SAME_PLANS)
    assert found[scheduler_checks.SAME_PLANS].status == "fails"
    assert re.search("the second time|steps, then", found[scheduler_checks.SAME_PLANS].detail)


def test_tokens_that_differ_on_the_model_are_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    rule, plain = (
        "same tokens as chunked_prefill on a model",
        OmegaConf.create({"name": "prefill_first", "victim": "oldest"}),
    )
    want = model_run._tokens("scheduler", plain, rule)
    monkeypatch.setattr(model_run, "_reference", lambda: want)
    assert model_run.same_tokens("scheduler", plain).startswith("10 requests")
    monkeypatch.setattr(model_run, "_reference", lambda: (*want[:4], (*want[4][:-1], 1 - want[4][-1]), *want[5:]))
    with pytest.raises(Violation, match="request 4 got"):
        model_run.same_tokens("scheduler", plain)

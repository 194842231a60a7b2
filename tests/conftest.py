"""Marks the tests that `make test` leaves to `make slow`: most of them take ten seconds or more."""

from __future__ import annotations

import pytest

SLOW = (
    "attention/test_backends.py::test_random_mixed_batches[flex]",
    "attention/test_backends.py::test_random_mixed_batches[triton-fp8-interpreted]",
    "attention/test_backends.py::test_named_batches[many decode rows-triton-interpreted]",
    "attention/test_backends.py::test_named_batches[decode rows of very different lengths-triton-interpreted]",
    "parity/test_smollm2.py::test_greedy_tokens_equal_transformers",
    "analysis/test_escape.py::test_a_curve_against_a_key_with_such_a_name",
    "analysis/test_left_out.py::test_the_others_are_compared_and_shown[steps hollow]",
    "launching/test_search.py::test_a_stored_search_goes_on_and_takes_no_other",
    "launching/test_search.py::test_failed_trials_are_closed",
    "launching/test_experiments.py::test_its_small_form_runs[search_tradeoff]",
    "launching/test_experiments.py::test_its_small_form_runs[schedulers_slo_clients]",
    "launching/test_experiments.py::test_its_small_form_runs[ablation_prefix]",
    "launching/test_experiments.py::test_its_small_form_runs[ablation_single]",
    "conformance/test_device_checks.py::test_every_built_in_sampler_states_what_it_draws_from[top_k_top_p]",
    "parallel/test_processes.py::test_torchrun_runs_what_the_engine_starts_itself",
    "parallel/test_hangs.py::test_rank_0_that_is_stuck_for_good_ends_its_process",
    "parallel/test_faults.py::test_interrupts_anywhere_and_a_step_that_fails[overlap0]",
    "engine/test_seeded_bugs.py::test_nothing_is_noticed_without_a_bug",
)
"""Ends of test ids."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.endswith(SLOW):
            item.add_marker(pytest.mark.slow)

"""For all tests: which of them `make test` leaves to `make slow`, and no plugin of one test in another."""

from __future__ import annotations

import copy

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from framework.registry import REGISTRIES, discovery

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
    "execution/test_step_graphs.py::test_every_sampler_inside_graphs_of_whole_steps[min_p]",
    "execution/test_step_graphs.py::test_samplers_that_stay_outside_get_the_same_rows",
    "execution/test_step_graphs.py::test_steps_with_chunks_give_the_tokens_of_an_eager_run[Mixed]",
    "attention/test_backends.py::test_named_batches[everything-triton-interpreted]",
    "attention/test_backends.py::test_named_batches[around a block's end-triton-interpreted]",
    "config/test_credentials.py::test_nothing_that_a_run_leaves_holds_one[arguments1-0]",
    "parallel/test_hangs.py::test_a_worker_that_hangs_in_its_start[2]",
    "parallel/test_hangs.py::test_a_worker_that_hangs_in_its_start[3]",
    "parallel/test_hangs.py::test_a_worker_that_hangs_in_its_start[5]",
    "parallel/test_hangs.py::test_a_worker_that_hangs_in_its_start[6]",
    "parallel/test_hangs.py::test_a_worker_that_hangs_in_its_start[8]",
    "parallel/test_hangs.py::test_rank_0_that_hangs_in_its_start[4]",
    "launching/test_elsewhere.py::test_a_sweep_on_another_launcher[slurm_rehearsal]",
    "launching/test_experiments.py::test_its_small_form_runs[ablation]",
    "launching/test_experiments.py::test_its_small_form_runs[search_throughput]",
    "launching/test_experiments.py::test_its_small_form_runs[schedulers_slo_gpu]",
    "launching/test_experiments.py::test_its_small_form_runs[fleet_routing]",
    "launching/test_experiments.py::test_every_level_composes[schedulers_slo_clients]",
    "launching/test_experiments.py::test_every_level_composes[schedulers_slo_gpu]",
    "launching/test_experiments.py::test_every_level_composes[ablation_prefix]",
    "launching/test_experiments.py::test_every_level_composes[ablation_single]",
    "launching/test_search.py::test_the_best_is_what_is_better_by_the_metrics_name",
    "conformance/test_registered.py::test_conforms[sampler=top_k_top_p]",
    "cli/test_run.py::test_a_failed_cell_does_not_end_its_sweep",
    "config/test_credentials.py::test_nothing_that_a_run_leaves_holds_one[arguments3-1]",
    "parallel/test_processes.py::test_ctrl_c_and_the_death_of_rank_0",
    "execution/test_step_graphs.py::test_every_sampler_inside_graphs_of_whole_steps[full]",
    "execution/test_step_graphs.py::test_the_tokens_of_an_eager_run[full]",
    "launching/test_axes.py::test_texts_with_marks_and_mappings_arrive",
    "launching/test_experiments.py::test_every_level_composes[eviction_mooncake]",
    "launching/test_experiments.py::test_every_level_composes[schedulers_slo]",
    "launching/test_experiments.py::test_its_small_form_runs[capacity]",
    "launching/test_experiments.py::test_its_small_form_runs[capacity_mooncake]",
    "launching/test_experiments.py::test_its_small_form_runs[eviction_mooncake]",
    "launching/test_capacity.py::test_a_closed_load_and_cells_without_a_capacity",
    "launching/test_capacity.py::test_each_cell_states_its_own_objectives",
    "conformance/test_registered.py::test_conforms[attention=flex]",
    "serving/test_server.py::test_a_step_that_fails_ends_its_requests_and_not_the_server",
    "serving/test_server.py::test_a_drain_finishes_what_runs_and_refuses_the_rest",
    "parallel/test_faults.py::test_interrupts_anywhere_and_a_step_that_fails[overlap1]",
    "parallel/test_failures.py::test_a_worker_that_is_gone[19-did not answer for 1.5 s]",
    "parallel/test_hangs.py::test_a_worker_that_hangs_in_its_start[7]",
    "extension/test_new_and_check.py::test_what_new_writes_is_right[eviction]",
    "launching/test_resume.py::test_a_cell_with_a_broken_record_runs_again_where_it_was",
    "launching/test_resume.py::test_a_single_run_writes_over_nothing",
    "launching/test_resume.py::test_sweeps_that_start_together_have_folders_of_their_own",
    "launching/test_resume.py::test_what_cannot_be_resumed",
    "launching/test_process.py::test_a_full_disk_is_named_and_the_summary_is_finished",
    "launching/test_process.py::test_skipped_cells_alone_are_no_success",
    "launching/test_process.py::test_an_interrupt_ends_the_cells_with_their_records",
    "launching/test_search.py::test_a_trade_off_knows_both_directions_in_any_order",
    "launching/test_search.py::test_a_search_that_found_nothing_says_so",
    "launching/test_search.py::test_goodput_without_a_limit_runs_no_cell",
    "launching/test_axes.py::test_an_interpolation_is_resolved_in_each_cell",
    "launching/test_grid.py::test_an_arm_stands_for_several_overrides",
    "launching/test_grid.py::test_a_key_that_some_choices_lack_skips_their_cells",
    "launching/test_experiments.py::test_every_level_composes[ablation]",
    "launching/test_experiments.py::test_its_small_form_runs[schedulers_slo]",
    "launching/test_in_process.py::test_only_the_last_weights_are_kept_and_only_inside",
    "serving/test_server.py::test_a_key_guards_everything_but_health",
    "serving/test_model.py::test_a_real_engine_stops_at_a_stop_string_and_gives_log_probabilities",
    "config/test_credentials.py::test_nothing_that_a_run_leaves_holds_one[arguments0-0]",
    "execution/test_step_graphs.py::test_steps_with_chunks_give_the_tokens_of_an_eager_run[MixedForward]",
    "execution/test_close.py::test_graphs_leave_nothing",
    "parity/test_tensor_parallel.py::test_greedy_tokens_are_those_of_one_rank[replicated_kv-chunked_prefill-True-0]",
    "cli/test_run.py::test_help_lists_what_hydra_would",
    "test_measure.py::test_nothing_is_left_of_earlier_cells",
    # These are judged by the clock, and a busy machine fails them.
    "conformance/test_scheduler_checks.py::test_the_case_is_small",
    "engine/test_forecast.py::test_it_costs_less_than_20_us_per_step",
    "launching/test_process.py::test_cells_lease_gpus_for_themselves",
    "parallel/test_hangs.py::test_the_clock_of_a_phase_starts_when_the_last_rank_gets_there",
    "schedulers/test_random.py::test_long_prompts_in_small_steps_end[0]",
)
"""Ends of test ids. Most of these tests take four seconds or more on two cores."""

SLOW_COMMANDS = (
    *("experiment=calibrate", "experiment=search_tradeoff", "executor.tp=2", "eviction=lru,s3fifo"),
    *("scheduler=chunked_prefill,short_first", "eviction=fifo model=tiny", "scheduler=mlfq,fair"),
    *("-m framework check plugins=[short_first.py]", "workload=nano_bench", "hydra/sweeper=capacity"),
    *("tutorial: python run.py -m scheduler=", "tutorial: python run.py -m plugins="),
)
"""Parts of commands in the documents, of which other commands and other tests try the same at less cost."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        of_a_document = "test_documents.py::test_command" in item.nodeid
        if item.nodeid.endswith(SLOW) or (of_a_document and any(part in item.nodeid for part in SLOW_COMMANDS)):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def _every_plugin() -> None:
    discovery.discover()  # else those that a test finds first would be taken back with its own
    Plugins.instance()  # likewise for what Hydra's own plugins store at first use


@pytest.fixture(autouse=True)
def _same_plugins_afterwards(_every_plugin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps plugins that a test registers, and those that it breaks, out of the tests after it."""
    store = ConfigStore.instance()
    monkeypatch.setattr(discovery, "_broken", dict(discovery._broken))
    monkeypatch.setattr(discovery, "_extra", set(discovery._extra))
    for registry in REGISTRIES.values():
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    groups = {name: copy.copy(group) for name, group in store.repo.items()}
    monkeypatch.setattr(store, "repo", groups)

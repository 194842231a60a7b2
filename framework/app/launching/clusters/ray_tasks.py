"""`hydra/launcher=ray_cell`: a Ray task per cell. Needs Ray and its launcher for Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, setup_globals
from omegaconf import OmegaConf, open_dict

from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher as TheirLauncher


class RayLauncher(TheirLauncher):
    """Hands the cells to Ray and waits until every one of them has ended.

    Ray's own launcher cannot use a cluster that runs already, since it always asks for an object store, and it ends at
    the first lost worker, which ends all the others.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of cells.

        Raises:
            RuntimeError: a worker or its node was lost, after all the other cells have ended.
        """
        import ray

        from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        if not ray.is_initialized():
            options: Any = OmegaConf.to_container(self.ray_cfg.init, resolve=True)
            ray.init(**options)
        tasks = []
        for index, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = f"job_id_for_{index}", index
            state = Singleton.get_state()
            tasks.append(launch_job_on_ray(self.hydra_context, self.ray_cfg.remote, config, self.task_function, state))
        results, lost = [], []
        for task in tasks:
            try:
                results.append(ray.get(task))
            except ray.exceptions.RayError as error:
                lost.append(error)
        if lost:
            raise RuntimeError(f"Ray lost {len(lost)} of {len(tasks)} cells, the first because: {lost[0]}")
        return results

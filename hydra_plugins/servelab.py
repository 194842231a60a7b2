"""The launchers and sweepers of this project, in the one namespace where Hydra looks for such plugins."""

from importlib.util import find_spec

from framework.app.launching import grid, in_process, process
from framework.app.launching.capacity import sweeper as capacity
from framework.app.launching.search import sweeper
from framework.app.launching.settings import store_settings

store_settings()


class GridSweeper(grid.GridSweeper):
    """`hydra/sweeper=grid`"""


class CapacitySweeper(capacity.CapacitySweeper):
    """`hydra/sweeper=capacity`"""


class SearchSweeper(sweeper.SearchSweeper):
    """`hydra/sweeper=search`"""


class ProcessLauncher(process.ProcessLauncher):
    """`hydra/launcher=process`"""


class InProcessLauncher(in_process.InProcessLauncher):
    """`hydra/launcher=in_process`"""


if find_spec("hydra_plugins.hydra_submitit_launcher") is not None:  # of the extra "sweep"
    from framework.app.launching.clusters import slurm

    class SlurmLauncher(slurm.SlurmLauncher):
        """`hydra/launcher=slurm_cell`"""


if find_spec("hydra_plugins.hydra_ray_launcher") is not None:  # of the extra "sweep"
    from framework.app.launching.clusters import ray_tasks

    class RayLauncher(ray_tasks.RayLauncher):
        """`hydra/launcher=ray_cell`"""

"""What a sampler is: a noun that fills a plan, or, where it is not linear in what it sees, runs by itself."""

from aijax.diffusion.grids import Grid
from aijax.diffusion.process import Process
from aijax.diffusion.samplers.plan import Plan, Trajectory, compact, run_plan, uses_noise
from aijax.errors import ConfigError
from aijax.typing import Any, Array, Callable, PRNGKey


class Sampler:
    """A sampler; most only define `plan`."""

    def plan(self, process: Process, grid: Grid) -> Plan:
        """Returns the table of the sampler on a grid, in float64 NumPy."""
        raise NotImplementedError

    def prepare(self, process: Process, grid: Grid, dtype: Any) -> Any:
        """Returns what `run` needs of process and grid: a tree of arrays."""
        return compact(self.plan(process, grid), dtype)

    def noise_shape(self, prepared: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Returns the shape of the noise that may be given, one array a network call, or None for no noise."""
        return (len(prepared.times), *shape) if uses_noise(prepared) else None

    def run(
        self,
        key: PRNGKey,
        predict: Callable,
        prepared: Any,
        x: Array,
        *,
        noise: Array | None = None,
        record: bool = False,
        on_call: Callable | None = None,
    ) -> tuple[Array, Trajectory | None]:
        """Returns the sample and, where asked, the trajectory; arguments as of `run_plan`."""
        return run_plan(key, predict, prepared, x, noise=noise, record=record, on_call=on_call)


def check_ratios(grid: Grid, sampler: Any) -> None:
    """Raises `ConfigError` where the grid starts at alpha = 0, for samplers that step in sigma / alpha."""
    if grid.alphas[0] == 0:
        raise ConfigError(
            f"grid: {type(sampler).__name__} steps in sigma / alpha and needs alpha > 0 at the start, got 0;"
            " give a smaller t_max"
        )

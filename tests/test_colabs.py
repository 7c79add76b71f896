"""The notebooks run from top to bottom, and say what they should."""

import os

import nbclient
import nbformat
import pytest


@pytest.fixture
def run_notebook(root, tmp_path, monkeypatch):
    """`run_notebook(name) -> outputs` of its cells, run in a folder of its own."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")

    def run(name):
        notebook = nbformat.read(root / "colabs" / name, as_version=4)
        nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
        return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]

    return run


def pictures(outputs):
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.processes
def test_the_quickstart_trains_opens_and_predicts(run_notebook):
    outputs = run_notebook("quickstart.ipynb")
    told = "".join(output.get("text", "") for output in outputs)
    share = float(told.split("% of 360 held-out digits are right")[0].split()[-1])
    assert share > 90
    assert pictures(outputs) == 3
    assert float(outputs[-1]["data"]["text/plain"]) > 0.9


@pytest.mark.processes
def test_tangent_kernels_on_a_flax_model(run_notebook):
    outputs = run_notebook("ntk.ipynb")
    told = "".join(output.get("text", "") for output in outputs)
    assert "converged: True" in told
    assert pictures(outputs) == 2
    assert float(outputs[-1]["data"]["text/plain"]) > 0.9

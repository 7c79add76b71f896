"""The notebooks run from top to bottom, and say what they should."""

import os

import nbclient
import nbformat
import pytest


@pytest.mark.processes
def test_the_quickstart_trains_opens_and_predicts(root, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = nbformat.read(root / "colabs" / "quickstart.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    told = "".join(output.get("text", "") for output in outputs)
    share = float(told.split("% of 360 held-out digits are right")[0].split()[-1])
    assert share > 90
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert float(outputs[-1]["data"]["text/plain"]) > 0.9

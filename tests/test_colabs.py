"""The notebooks run from top to bottom, and say what they should."""

import os
import re

import nbclient
import nbformat
import pytest


@pytest.fixture
def run_notebook(root, tmp_path, monkeypatch):
    """`run_notebook(name) -> outputs` of its cells, run in a folder of its own."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as for all tests: what is compiled runs once

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


@pytest.mark.processes
def test_gaussian_processes_from_regression_to_optimisation(run_notebook):
    outputs = run_notebook("gp.ipynb")
    told = "".join(output.get("text", "") for output in outputs)

    def number(pattern):
        return float(re.search(pattern, told)[1])

    assert number(r"noise ([\d.]+) where 0.3") == pytest.approx(0.3, abs=0.05)
    names = ("smooth", "Brownian motion", r"line \+ season")
    evidence = [number(rf"{name} +log evidence +(-[\d.]+)") for name in names]
    assert evidence == sorted(evidence) and evidence[2] > evidence[1] + 50
    assert number(r"([\d.]+) nats a label") < number(r"by the true probabilities ([\d.]+)") + 0.05
    assert number(r"distance of calibration: ([\d.]+)") < 0.15
    assert number(r"([\d.]+)% of 400 other digits right") > 90
    assert number(r"root mean square error of f ([\d.]+)") < 0.15
    exact = number(r"points on a plane: ([\d.]+)")
    assert number(r"at least +([\d.]+)") < exact
    assert abs(number(r"gradients +([\d.]+)") - exact) < 4 * number(r"\+- ([\d.]+)")
    assert pictures(outputs) == 6
    assert 0 <= float(outputs[-1]["data"]["text/plain"]) < 0.2


@pytest.mark.processes
def test_diffusion_in_the_plane_and_of_digits(run_notebook):
    outputs = run_notebook("diffusion.ipynb")
    told = "".join(output.get("text", "") for output in outputs)
    assert float(told.split("the farthest sampler is at ")[1].split(",")[0]) < 0.2
    assert abs(float(told.split(" nats, ")[1].split()[0])) < 0.2
    assert "changed by 0.000" in told
    assert pictures(outputs) == 3
    assert float(outputs[-1]["data"]["text/plain"]) > 0.95


@pytest.mark.processes
def test_a_published_vision_transformer_its_captions_and_its_attention(run_notebook):
    outputs = run_notebook("vit_clip.ipynb")
    told = "".join(output.get("text", "") for output in outputs)

    def share(pattern):
        return float(re.search(pattern, told)[1]) / 100

    assert "['config.json', 'model.safetensors'] written again, the same bytes: True" in told
    accuracy = share(r"([\d.]+)% of 360 held-out digits are right")
    assert accuracy > 0.9
    assert share(r"([\d.]+)% of others") > 0.85
    assert min(float(value) for value in re.findall(r"_r1': ([\d.]+)", told)) > 0.7
    assert share(r"([\d.]+)% fewer are right without it") > 0.03
    assert share(r"alike: ([\d.]+)% are right") < accuracy - 0.2
    assert pictures(outputs) == 3
    assert float(outputs[-1]["data"]["text/plain"]) > 0.5  # of captions never seen; by chance 1 of 60


@pytest.mark.processes
def test_inside_of_a_small_network(run_notebook):
    outputs = run_notebook("interp.ipynb")
    told = "".join(output.get("text", "") for output in outputs)
    assert float(re.search(r"([\d.]+)% of 256 texts are answered right", told)[1]) > 99
    edges, of, share = map(int, re.search(r"(\d+) of (\d+) edges do (\d+)% of it", told).groups())
    assert edges < of and share > 85
    lens = [int(value) for value in re.findall(r"lens +(\d+)%", told)]
    assert lens[0] < 30 and lens[-1] > 99
    assert int(re.search(r"(\d+)% of the variance by 4.0 latents", told)[1]) > 85
    assert pictures(outputs) == 4
    assert float(outputs[-1]["data"]["text/plain"]) > 0.85


@pytest.mark.processes
def test_the_landscape_of_a_loss(run_notebook):
    outputs = run_notebook("landscape.ipynb")
    told = "".join(output.get("text", "") for output in outputs)

    def number(pattern):
        return float(re.search(pattern, told)[1])

    assert number(r"two directions hold ([\d.]+)%") > 80
    straight = number(r"straight: barrier ([\d.]+)")
    assert number(r"units exchanged: barrier ([\d.]+)") < straight
    assert number(r"curve: barrier ([\d.]+)") < straight
    assert number(r"between (\d+) and") < number(r"critical batch (\d+)") < number(r"between \d+ and (\d+)")
    assert pictures(outputs) == 4
    assert 0.8 < float(outputs[-1]["data"]["text/plain"]) < 1.2

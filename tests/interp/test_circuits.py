"""The circuit of a behaviour, by every method; the picture; what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from aijax.errors import ConfigError
from aijax.interp import circuit_discovery, draw_circuit, draw_curves

FAST = {"sizes": (4, 11), "draws": 1, "probes": 1}


def last(y):
    return y[:, -1]


@pytest.fixture(scope="module")
def circuit(small_net):
    """The call of the guide, from inputs alone: in the place of an edge's value is its mean over the examples."""
    two = lambda params, x: small_net.apply_fn(params, x)[:, -2:]  # noqa: E731
    return circuit_discovery(two, small_net.params, small_net.clean, target_behavior=lambda y: y[:, 0], **FAST)


def test_the_call_of_the_guide(circuit, small_net):
    assert circuit.faithfulness >= 0.9 and circuit.graph.edges == tuple(small_net.EDGES)
    scores = [abs(score) for _, score in circuit.edges()]
    assert scores == sorted(scores, reverse=True) and len(scores) == circuit.kept.sum()
    exact = dict(zip(circuit.graph.edges, circuit.scores, strict=True))
    assert all(exact[edge] == score for edge, score in circuit.edges())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("exact", {"num_edges": 9}),
        ("eap", {}),
        ("eap_ig", {"steps": 2}),
        ("eap_ig_activations", {"steps": 2}),
        ("acdc", {}),
    ],
)  # fmt: skip
def test_methods(small_net, method, options):
    circuit = circuit_discovery(
        small_net.apply_fn, small_net.params, small_net.clean, target_behavior=last, corrupted=small_net.corrupted,
        method=method, **FAST, **options,
    )  # fmt: skip
    assert circuit.scores.shape == (11,) and 0 < len(circuit.edges()) <= 11
    if method == "exact":
        assert 9 in circuit.curves.best.sizes and len(circuit.edges()) <= 9
    elif method != "acdc":
        assert circuit.faithfulness >= 0.9


@pytest.mark.slow
def test_compiled_and_on_eight_devices_it_is_the_same(small_net):
    def found(params, clean, corrupted):
        return circuit_discovery(
            small_net.apply_fn, params, clean, target_behavior=last, corrupted=corrupted, method="eap", **FAST
        )

    args = small_net.params, small_net.clean, small_net.corrupted
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.enable_x64(True):
        split = jax.device_put(args[1:], NamedSharding(mesh, PartitionSpec("data")))
        one, compiled, eight = found(*args), jax.jit(found)(*args), found(args[0], *split)
    for other in (compiled, eight):
        np.testing.assert_array_equal(other.kept, one.kept)
        np.testing.assert_allclose(other.scores, one.scores, atol=1e-12)
        np.testing.assert_allclose(other.curves.best.faithfulness, one.curves.best.faithfulness, atol=1e-12)


@pytest.mark.slow
def test_trained_heads_of_induction_are_found(edge_case, tmp_path):
    with jax.enable_x64(True):
        run = edge_case("eap_trained_a").run
        case = edge_case("eap_trained_a").arrays
        circuit = circuit_discovery(
            run.apply_fn, run.params, case["clean"], target_behavior=run.target, corrupted=case["corrupted"],
            method="atp_star", sizes=(10, 24, 81), draws=2, probes=2,
        )  # fmt: skip
        assert circuit.faithfulness > 0.9 and circuit.completeness > 0.9 and len(circuit.edges()) < 30
        assert np.all(circuit.curves.random.faithfulness[:, 1] < 0.1)
        draw_circuit(tmp_path / "trained.png", circuit)


def test_it_is_drawn(circuit, tmp_path):
    draw_circuit(tmp_path / "a" / "circuit.svg", circuit)
    draw_curves(tmp_path / "curves.png", circuit.curves)
    drawn = (tmp_path / "a" / "circuit.svg").read_text()
    assert "<!-- output -->" in drawn and "<!-- a.h1 -->" in drawn
    assert (tmp_path / "curves.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="circuit: expected one with edges, got none"):
        draw_circuit(tmp_path / "none.png", dataclasses.replace(circuit, kept=np.zeros(11, bool)))


def test_what_is_asked_wrongly_is_told(small_net):
    def found(**options):
        return circuit_discovery(
            small_net.apply_fn, small_net.params, small_net.clean, target_behavior=last,
            corrupted=small_net.corrupted, **options,
        )  # fmt: skip

    with pytest.raises(ConfigError, match="method: unknown value 'eapig'; did you mean 'eap_ig'"):
        found(method="eapig")
    with pytest.raises(ConfigError, match="step: method 'eap_ig' has no such option; did you mean 'steps'"):
        found(method="eap_ig", step=3)
    with pytest.raises(ConfigError, match="num_edges: expected 1 to 11, got 12"):
        found(num_edges=12)
    with pytest.raises(ConfigError, match="num_edges: 'acdc' chooses by its threshold, so expected None, got 3"):
        found(method="acdc", num_edges=3)
    with pytest.raises(ConfigError, match=r"apply_fn: expected taps writes_\* and reads_\*"):
        circuit_discovery(lambda w, x: x @ w, jnp.ones((3, 2)), jnp.ones((4, 3)), target_behavior=lambda y: y[:, 0])

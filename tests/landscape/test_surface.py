"""Directions, surfaces and principal components against reference values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax import landscape
from aijax.errors import ConfigError, DataError

LONGER = pytest.param(("landscape_mlp_softplus", "mse"), marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[("landscape_mlp_tanh", "ce"), LONGER], ids=lambda names: names[0])
def case(request, read_case):
    name, loss = request.param
    with jax.enable_x64(True):
        return read_case(name, loss=loss)


def directions(case, kind):
    return [
        landscape.normalize_direction(case.vector(case.arrays[f"raw_dir{i}"]), case.params, how=kind, filter_axis=0)
        for i in range(2)
    ]


def test_directions_have_the_norms_of_the_network(case):
    for kind in ("filter", "layer"):
        for i, direction in enumerate(directions(case, kind)):
            np.testing.assert_allclose(case.flat(direction), case.arrays[f"dir{i}_{kind}"], rtol=1e-8, atol=1e-12)
    turned = {name: case.params[name].T for name in ("net.0.weight", "net.0.bias")}
    drawn = landscape.random_direction(jax.random.key(0), turned)
    for name, leaf in turned.items():
        norms = jnp.linalg.norm(leaf, axis=0) if leaf.ndim == 2 else 0 * leaf
        np.testing.assert_allclose(jnp.linalg.norm(drawn[name], axis=0) if leaf.ndim == 2 else drawn[name], norms)
    with pytest.raises(ConfigError, match="direction: expected an array"):
        landscape.normalize_direction({name: leaf[..., :1] for name, leaf in turned.items()}, turned)
    with pytest.raises(ConfigError, match="unknown value 'filters'; did you mean 'filter'"):
        landscape.random_direction(jax.random.key(0), turned, normalize="filters")


def test_surfaces_are_those_of_the_loss(case, tmp_path):
    grid = jnp.asarray(case.arrays["grid"])
    plane = landscape.surface(case.loss_fn, case.params, case.batch, directions(case, "filter"), grid, batch_size=15)
    np.testing.assert_allclose(plane.values, case.arrays["surface_filter"], rtol=1e-8)
    line = landscape.loss_landscape_analysis(
        case.loss_fn,
        case.params,
        [case.batch],
        directions(case, "layer")[:1],
        grid=jnp.asarray(case.arrays["grid1d_layer"]),
    )
    np.testing.assert_allclose(line.values, case.arrays["line_layer"], rtol=1e-8)
    landscape.save_surface(tmp_path / "a.npz", plane)
    again = landscape.load_surface(tmp_path / "a.npz")
    assert np.array_equal(again.values, plane.values) and np.array_equal(again.axes[1], grid)
    (tmp_path / "b.npz").write_text("no")
    with pytest.raises(DataError, match="expected a surface"):
        landscape.load_surface(tmp_path / "b.npz")
    with pytest.raises(ConfigError, match="expected one or two, got 3"):
        landscape.surface(case.loss_fn, case.params, case.batch, [case.params] * 3)
    with pytest.raises(ConfigError, match=r"directions\[0\]: expected a tree like the parameters"):
        landscape.surface(case.loss_fn, case.params, case.batch, [jnp.ones(3)])


def test_principal_directions_are_those_of_the_trajectory(case):
    arrays = case.arrays
    found = landscape.principal_directions(case.vector(arrays["trajectory"][:-1]), case.params)
    rows = case.flat(found.directions)
    np.testing.assert_allclose(rows, arrays["pca_components"], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.explained, arrays["pca_explained_ratio"][:2], rtol=1e-8)
    np.testing.assert_allclose(found.coordinates, arrays["pca_coords"], rtol=1e-7, atol=1e-9)
    two = [jax.tree.map(lambda leaf, i=i: leaf[i], found.directions) for i in range(2)]
    plane = landscape.surface(case.loss_fn, case.params, case.batch, two, jnp.asarray(arrays["pca_grid"]))
    np.testing.assert_allclose(plane.values, arrays["surface_pca"], rtol=1e-7)
    unit = case.vector(arrays["top_eigvec"])
    line = landscape.surface(case.loss_fn, case.params, case.batch, unit, jnp.asarray(arrays["line_eig_t"]))
    np.testing.assert_allclose(line.values, arrays["line_eig"], rtol=1e-8)
    with pytest.raises(ConfigError, match="k: expected from 1 to 20"):
        landscape.principal_directions(case.vector(arrays["trajectory"][:-1]), case.params, 21)


def test_pictures_show_the_lowest_place_where_it_is(tmp_path):
    from matplotlib.image import imread

    axes = jnp.linspace(-1, 1, 21), jnp.linspace(-2, 2, 11)
    bowl = landscape.Surface(axes, (axes[0][:, None] - 0.5) ** 2 + axes[1] ** 2 + 1)
    track = np.array([[-1.0, 1.0], [0.5, 0.0]])
    for style in ("contours", "relief"):
        landscape.draw_surface(
            tmp_path / "figures" / f"{style}.png", bowl, style=style, trajectory=track, log_scale=True
        )
    picture = imread(tmp_path / "figures" / "contours.png")[..., :3]
    red = np.argwhere((picture[..., 0] > 0.95) & (picture[..., 1] < 0.1) & (picture[..., 2] < 0.1)).mean(0)
    white = (picture > 0.98).all(-1)
    assert 0.3 < red[0] / picture.shape[0] < 0.6 and 0.45 < red[1] / picture.shape[1] < 0.7 and white.any()
    landscape.draw_surface(tmp_path / "line.png", landscape.Surface(axes[:1], axes[0] ** 2))
    with pytest.raises(ConfigError, match="log_scale: expected positive losses, got -1"):
        landscape.draw_surface(tmp_path / "a.png", landscape.Surface(axes[:1], axes[0]), log_scale=True)
    with pytest.raises(ConfigError, match="unknown value 'contour'; did you mean 'contours'"):
        landscape.draw_surface(tmp_path / "a.png", bowl, style="contour")

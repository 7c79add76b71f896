import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aijax.data.views import multi_crop, random_colors
from aijax.errors import ConfigError


@pytest.mark.slow
def test_views_have_their_sizes_stay_in_range_and_depend_on_the_key():
    images = jax.random.uniform(jax.random.key(0), (3, 8, 12, 3)).at[0].set(0.5)
    cut = jax.jit(lambda key: multi_crop(key, images, local_crops=1, local_size=5, jitter=0.0))
    large, small = cut(jax.random.key(1))
    assert (large.shape, small.shape) == ((3, 2, 8, 12, 3), (3, 1, 5, 5, 3))
    for views in (large, small):
        assert views.min() >= 0
        assert views.max() <= 1
        np.testing.assert_allclose(views[0], 0.5, atol=1e-6)
    assert not np.allclose(large[:, 0], large[:, 1])
    np.testing.assert_array_equal(large, cut(jax.random.key(1))[0])
    assert not np.allclose(large, cut(jax.random.key(2))[0])


def test_views_need_not_be_mirrored():
    ramp = jnp.broadcast_to(jnp.arange(6.0)[:, None] / 6, (16, 4, 6, 1))
    cut = {"local_crops": 0, "jitter_probability": 0.0, "grey_probability": 0.0, "solarize_probability": 0.0}
    rising = {
        flip: jnp.diff(multi_crop(jax.random.key(0), ramp, flip=flip, **cut)[0][..., 0]) for flip in (True, False)
    }
    assert (rising[False] >= -1e-6).all() and not (rising[True] >= -1e-6).all()


def test_images_without_colours_are_grey_and_those_that_are_left_stay():
    images = jax.random.uniform(jax.random.key(0), (3, 4, 4, 3))
    np.testing.assert_array_equal(random_colors(jax.random.key(1), images, 0.4, 0.0, 0.0), images)
    grey = random_colors(jax.random.key(1), images, 0.4, 0.0, 1.0)
    luma = np.asarray(images) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey, np.repeat(luma, 3).reshape(images.shape), 1e-6)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"global_crops": 0}, "global_crops: expected at least 1, got 0"),
        ({"local_area": (0.5, 0.1)}, "local_area: expected shares 0 < least <= largest <= 1"),
    ],
)
def test_wrong_views_are_told(option, message):
    with pytest.raises(ConfigError, match=message):
        multi_crop(jax.random.key(0), jnp.ones((1, 4, 4, 3)), **option)

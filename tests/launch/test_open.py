import json

import jax
import numpy as np
import pytest

import aijax
from aijax.data import load_source
from aijax.errors import ConfigError
from aijax.launch.cli import main


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("runs") / "mlp"
    words = ["--config.total_steps=60", "--config.checkpoint.every_steps=30", "--config.evaluate_every_steps=60"]
    assert main(["run", str(root / "configs/mlp/digits.py"), "--workdir", str(folder), *words]) == 0
    return aijax.open_run(folder)


def test_an_opened_run_predicts_as_well_as_it_measured(classifier):
    test = load_source(classifier.config.data, "test")
    examples = test[np.arange(len(test))]
    accuracy = np.mean([int(name) for name in classifier.predict(examples["image"])] == examples["label"])
    assert accuracy == pytest.approx(classifier.metrics["test/accuracy"])
    assert classifier.step == 60
    assert classifier.classes == tuple("0123456789")
    assert classifier.history[-1]["test/accuracy"] == pytest.approx(classifier.metrics["test/accuracy"])


def test_its_function_is_pure_and_differentiable(classifier):
    image = np.full((2, 8, 8, 1), 0.5, np.float32)
    x = classifier.preprocess(image)
    np.testing.assert_allclose(classifier.apply(image), classifier.apply_fn(classifier.params, x), rtol=1e-5, atol=1e-5)
    grads = jax.grad(lambda params: classifier.apply_fn(params, x).sum())(classifier.params)
    assert jax.tree.structure(grads) == jax.tree.structure(classifier.params)


def test_an_earlier_checkpoint_can_be_opened(classifier):
    earlier = aijax.open_run(classifier.folder, step=30)
    assert earlier.step == 30
    assert not np.array_equal(earlier.params["head"]["kernel"], classifier.params["head"]["kernel"])
    with pytest.raises(ConfigError, match="no checkpoint of step 31"):
        aijax.open_run(classifier.folder, step=31)


def test_a_run_opens_where_neither_the_data_nor_the_experiment_is_left(classifier, tmp_path):
    import shutil

    moved = shutil.copytree(classifier.folder, tmp_path / "moved")
    config = json.loads((moved / "config.json").read_text())
    config["data"] = {"source": "npz", "train_path": "gone.npz"}
    (moved / "config.json").write_text(json.dumps(config))
    about = json.loads((moved / "run.json").read_text())
    about["experiment"]["file"] = str(tmp_path / "gone.py")
    (moved / "run.json").write_text(json.dumps(about))
    image = np.full((2, 8, 8, 1), 0.5, np.float32)
    np.testing.assert_array_equal(aijax.open_run(moved).apply(image), classifier.apply(image))


def test_a_language_model_comes_with_its_tokenizer(root, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 200)
    words = [
        f"--config.data.path={text}", "--config.data.length=16", "--config.total_steps=3", "--config.batch_size=8",
        "--config.model.depth=1", "--config.model.width=16", "--config.model.num_heads=2", "--config.sample.length=8",
        "--config.sample.prompt=the", "--config.data.validation_fraction=0.1",
    ]  # fmt: skip
    assert main(["run", str(root / "configs/lm/chars.py"), "--workdir", str(tmp_path / "lm"), *words]) == 0
    run = aijax.open_run(tmp_path / "lm")
    tokens = run.tokenizer.encode("the cat")
    assert run.tokenizer.decode(tokens) == "the cat"
    assert run.apply(tokens[None]).shape == (1, 7, run.tokenizer.vocabulary_size)
    assert (tmp_path / "lm" / "figures" / "sample.txt").read_text().startswith("the")
    with pytest.raises(ConfigError, match="predict needs classes"):
        run.predict(tokens[None])


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a run folder"):
        aijax.open_run(tmp_path)

"""Loading a config: what it resolves to, and a sentence for each way that it cannot be loaded."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict, FrozenConfigDict

from aijax.errors import ConfigError
from aijax.launch.config import (
    MISSING,
    difference,
    find_experiment,
    flatten,
    freeze,
    from_json,
    import_experiment,
    load,
    render_difference,
    to_json,
)

HEAD = "from ml_collections import ConfigDict, config_dict\n"


def test_load_resolves_a_config(project):
    loaded = load("configs/small/nothing.py", [("model.depth", "6"), ("total_epochs", "5")])
    assert isinstance(loaded.config, FrozenConfigDict)
    assert loaded.config.model.depth == 6
    assert loaded.config.model.names == ("a", "b")
    assert loaded.config.schedule.decay_epochs == 10
    assert loaded.config.limit is None
    assert loaded.path == project / "configs/small/nothing.py"
    assert (loaded.name, loaded.argument, loaded.project) == ("small/nothing", None, project)
    assert loaded.experiment == project / "experiments/train_nothing.py"
    assert loaded.description == "A small classifier of nothing."


def test_load_passes_the_argument_after_the_colon(project):
    loaded = load("configs/small/nothing.py:large")
    assert (loaded.config.model.depth, loaded.argument) == (40, "large")


def test_a_run_folder_repeats_its_config(project, make_run):
    config = load("configs/small/nothing.py", [("optimizer.betas", "0.8,0.9")]).config
    run = make_run(project / "runs" / "a")
    (run / "config.json").write_text(to_json(config))
    for spec in ("runs/a", "runs/a/config.json"):
        loaded = load(spec)
        assert loaded.config == config
        assert (loaded.name, loaded.project) == ("a", project)
    assert load("runs/a", [("seed", "3")]).config.seed == 3


def test_a_run_folder_elsewhere_finds_the_project_that_made_it(project, make_run, tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("elsewhere") / "a")
    recorded = {"experiment": {"name": "train_nothing", "file": str(project / "experiments" / "train_nothing.py")}}
    (run / "run.json").write_text(json.dumps(recorded))
    assert load(str(run)).project == project


def test_a_config_imports_its_neighbours_and_leaves_the_path_alone(write_config, project):
    import sys

    before = list(sys.path)
    (project / "configs" / "shared_by_own.py").write_text("SEED = 11\n")
    spec = write_config(
        HEAD + "from shared_by_own import SEED\n"
        "def get_config():\n    return ConfigDict({'experiment': 'train_nothing', 'seed': SEED})\n"
    )
    assert load(spec).config.seed == 11
    assert sys.path == before


def test_an_edited_config_is_read_again(write_config):
    body = HEAD + "def get_config():\n    return ConfigDict({'experiment': 'train_nothing', 'seed': %d})\n"
    assert [load(write_config(body % seed)).config.seed for seed in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("def get_config(:\n", "own.py:1: syntax error"),
        ("x = 1\n", "no function get_config()"),
        ("def get_confg():\n    return 1\n", "did you mean 'get_confg'?"),
        ("get_config = 3\n", "no function get_config()"),
        (
            "def get_config():\n    return {'seed': 1}\n",
            "get_config() returned a dict; expected an ml_collections.ConfigDict",
        ),
        ("def get_config():\n    return None\n", "returned a NoneType"),
        ("import nowhere_to_be_found\n", "own.py:1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def get_config():\n    x = 1\n    return x / 0\n", "own.py:3: ZeroDivisionError: division by zero"),
        ("def get_config():\n    raise SystemExit('two\\nlines')\n", "own.py:2: SystemExit: two lines"),
        ("def get_config():\n    open('no/such/file')\n", "own.py:2: FileNotFoundError"),
        ("def get_config(size):\n    return size\n", "get_config(size) needs an argument; write own.py:ARGUMENT"),
        (HEAD + "def get_config():\n    return ConfigDict({'seed': 1})\n", "config.experiment is missing"),
        (
            HEAD + "def get_config():\n    return ConfigDict({'experiment': 'train_nothin'})\n",
            "did you mean 'train_nothing'?",
        ),
        (HEAD + "def get_config():\n    return ConfigDict({'experiment': '../x'})\n", "expected the name of a module"),
        (HEAD + "def get_config():\n    return ConfigDict({'experiment': 3})\n", "expected the name of a module"),
        (
            HEAD + "def get_config():\n    return ConfigDict({'experiment': 'e', 'f': print})\n",
            "config.f: a builtin_function_or_method is not plain data",
        ),
        (
            HEAD + "def get_config():\n    return ConfigDict({'m': {'s': {1, 2}}})\n",
            "config.m.s: a set is not plain data",
        ),
        (
            HEAD + "def get_config():\n    return ConfigDict({'m': [1, {'a': 1}]})\n",
            "config.m[1]: a section cannot stand",
        ),
        (
            HEAD + "def get_config():\n    return ConfigDict({'m': (1, b'')})\n",
            "config.m[1]: a bytes is not plain data",
        ),
        (
            HEAD + "def get_config():\n    return ConfigDict({'m': float('nan')})\n",
            "config.m: expected a finite number",
        ),
        (HEAD + "def get_config():\n    return ConfigDict({'a b=': 1})\n", "the field name 'a b=' cannot be written"),
        (
            HEAD + "def get_config():\n    return ConfigDict({'m': config_dict.required_placeholder(int)})\n",
            "config.m: required and not set; add --config.m=VALUE",
        ),
    ],
)
def test_a_config_that_cannot_be_loaded_is_one_sentence(write_config, body, sentence):
    with pytest.raises(ConfigError) as caught:
        load(write_config(body))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("configs/small/nothin.py", "no such file; did you mean 'configs/small/nothing.py'?"),
        ("config/small/nothing.py", "did you mean 'configs/small/nothing.py'?"),
        ("configs/small/nothing", "no such file; did you mean 'configs/small/nothing.py'?"),
        ("configs", "a folder without config.json"),
        ("configs/small/nothing.py:", "nothing after the colon"),
        ("experiments/train_nothing.txt", "no such file"),
        ("notes.txt", "expected a config file.py, a config.json or a run folder"),
        ("broken.json", "broken.json:2: not valid JSON"),
        ("list.json", "expected a JSON object of fields, got list"),
        ("binary.py", "binary.py: ValueError: source code string cannot contain null bytes"),
        ("binary.json", "not a text file in UTF-8"),
    ],
)
def test_a_spec_that_names_no_config_is_one_sentence(project, spec, sentence):
    (project / "notes.txt").write_text("notes")
    (project / "broken.json").write_text('{"a": 1,\n')
    (project / "list.json").write_text("[1]")
    (project / "binary.py").write_bytes(b"\0\1")
    (project / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as caught:
        load(spec)
    message = str(caught.value)
    assert sentence in message or (spec == "binary.py" and "null bytes" in message)
    assert "\n" not in message


def test_a_reference_that_an_override_breaks_is_one_sentence(write_config):
    spec = write_config(
        HEAD + "def get_config():\n    c = ConfigDict({'x': 1})\n    c.y = 6 // c.get_ref('x')\n    return c\n"
    )
    with pytest.raises(ConfigError, match=r"config\.y: its reference cannot be computed: ZeroDivisionError"):
        load(spec, [("x", "0")])


def test_an_argument_that_nobody_takes_is_refused(write_config):
    spec = write_config(HEAD + "def get_config():\n    return ConfigDict({'experiment': 'train_nothing'})\n")
    with pytest.raises(ConfigError, match=r"get_config\(\) takes no argument, got 'b16'"):
        load(f"{spec}:b16")


def test_experiments_are_found_without_being_imported(project):
    (project / "experiments" / "explodes.py").write_text("raise RuntimeError('imported')\n")
    (project / "own_package").mkdir()
    (project / "own_package" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (project / "own_package" / "study.py").write_text("")
    (project / "single.py").write_text("")
    assert find_experiment("explodes", project) == project / "experiments" / "explodes.py"
    assert find_experiment("deep.train_more", project) == project / "experiments" / "deep" / "train_more.py"
    assert find_experiment("own_package.study", project) == "own_package.study"
    assert find_experiment("single", project) == "single"
    assert find_experiment("xml.dom.minidom", project) == "xml.dom.minidom"
    for name in ("json", "own_package.studi", "xml.dom.nothing", "deep"):
        with pytest.raises(ConfigError, match="no experiment"):
            find_experiment(name, project)


def test_an_experiment_is_imported_once_and_sees_its_neighbours(project, monkeypatch):
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    (project / "helper_of_nothing.py").write_text("VALUE = 5\n")
    (project / "experiments" / "uses_helper.py").write_text("from helper_of_nothing import VALUE\n")
    found = find_experiment("uses_helper", project)
    module = import_experiment(found, project)
    assert module.VALUE == 5
    assert import_experiment(found, project) is module
    assert import_experiment("helper_of_nothing", project).VALUE == 5


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text("abcdefgh_", min_size=1, max_size=6)
CONFIGS = st.dictionaries(NAMES, PLAIN | st.dictionaries(NAMES, PLAIN, max_size=3), max_size=4)


@settings(max_examples=60, deadline=None)
@given(CONFIGS)
def test_json_gives_the_same_config_back(tmp_path_factory, data):
    config = freeze(ConfigDict(data))
    path = tmp_path_factory.mktemp("json") / "config.json"
    path.write_text(to_json(config))
    assert from_json(path) == config
    assert difference(config, from_json(path)) == []


def test_difference_names_what_changed():
    old = {"seed": 0, "model": {"depth": 4, "widths": [1, 2], "old": True}, "flag": True, "empty": {}}
    new = {"seed": 0.0, "model": {"depth": 6, "widths": (1, 2), "new": None}, "flag": 1, "empty": {}}
    changes = difference(old, new)
    assert changes == [
        ("model.depth", 4, 6),
        ("model.old", True, MISSING),
        ("flag", True, 1),
        ("model.new", MISSING, None),
    ]
    told = render_difference(changes, limit=2)
    assert told == "config.model.depth: 4 -> 6, config.model.old: True -> (no such field) and 2 more"


def test_flatten_gives_full_paths():
    assert flatten(freeze({"a": {"b": {"c": 1}}, "d": [1]})) == {"a.b.c": 1, "d": (1,)}


def test_what_aijax_ships_is_found_from_any_folder(tmp_path, monkeypatch):
    from aijax.launch.projects import shipped_root

    monkeypatch.chdir(tmp_path)
    shipped = sorted((shipped_root() / "configs").rglob("*.py"))
    for path in shipped[:1]:
        spec = path.relative_to(shipped_root()).as_posix()
        assert load(spec).path == Path(path).resolve()

"""`aijax list` reads docstrings and runs nothing."""

from aijax.launch.listing import configs, describe, experiments
from aijax.launch.projects import project_of, shipped_root


def test_the_project_and_what_is_shipped_are_listed(project, aijax, monkeypatch):
    monkeypatch.chdir(project / "configs" / "small")
    answer = aijax("list")
    assert answer.status == 0 and answer.err == ""
    for words in (
        "configs/small/nothing.py",
        "A small classifier of nothing.",
        "train_nothing",
        "Trains nothing at all.",
    ):
        assert words in answer.out
    assert "deep.train_more" in answer.out
    assert "The second paragraph" not in answer.out
    for entry in [*experiments(shipped_root()), *configs(shipped_root())]:
        assert entry.name in answer.out


def test_nothing_is_executed(project):
    (project / "experiments" / "explodes.py").write_text('"""Explodes."""\nraise SystemExit("imported")\n')
    (project / "configs" / "explodes.py").write_text('raise SystemExit("imported")\ndef get_config(): ...\n')
    (project / "configs" / "_private.py").write_text("def get_config(): ...\n")
    (project / "configs" / "helper.py").write_text("SIZE = 3\n")
    assert [entry.name for entry in configs(project)] == ["configs/explodes.py", "configs/small/nothing.py"]
    assert [entry.description for entry in experiments(project)] == [
        "Trains more.",
        "Explodes.",
        "Trains nothing at all.",
    ]


def test_a_file_that_cannot_be_parsed_says_so(project):
    broken = project / "configs" / "broken.py"
    broken.write_text('"""Broken."""\n\ndef get_config(:\n')
    assert describe(broken) == "(syntax error in line 3)"
    assert "configs/broken.py" in [entry.name for entry in configs(project)]


def test_every_shipped_file_has_a_docstring():
    for entry in [*experiments(shipped_root()), *configs(shipped_root())]:
        assert entry.description and not entry.description.startswith("("), entry.name


def test_a_folder_without_a_project_lists_what_is_shipped(tmp_path, aijax, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if project_of(tmp_path) is None:
        answer = aijax("list")
        assert answer.status == 0 and "this project" not in answer.out

"""How the command-line programs answer: exit codes, and one line for a mistake."""

import errno
import shlex
import sys

import pytest

from smolvla_core.command import BAD_INPUT, FAILED, OK, Parser, answer, python_command, refuse_unwritable
from smolvla_core.errors import ConfigError, DataError, DivergedError, UserError


def test_a_python_in_a_folder_with_blanks_can_be_called_as_it_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/my tools/bin/python")
    assert shlex.split(python_command()) == ["/my tools/bin/python"]


def raising(error):
    def command():
        raise error

    return command


def test_the_codes_are_those_that_are_documented():
    assert (OK, FAILED, BAD_INPUT) == (0, 1, 2)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_command_that_ends_gives_its_own_code(capsys, code):
    assert answer(lambda: code) == code
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [UserError, ConfigError, DataError])
def test_a_users_mistake_is_one_line_and_code_2(capsys, kind):
    assert answer(raising(kind("optim.lr: got -1; it must be above 0"))) == 2
    assert capsys.readouterr() == ("", "error: optim.lr: got -1; it must be above 0\n")


def test_a_mistake_told_by_a_library_in_several_lines_is_still_one(capsys):
    assert answer(raising(DataError("my  eggs.parquet: cannot be read:\n  footer is missing\n\n  try again"))) == 2
    assert capsys.readouterr().err == "error: my  eggs.parquet: cannot be read: footer is missing try again\n"


def test_an_interrupt_is_one_line_and_code_1(capsys):
    assert answer(raising(KeyboardInterrupt())) == 1
    assert capsys.readouterr().err == "interrupted\n"
    assert answer(raising(KeyboardInterrupt()), "stopped; run again to continue") == 1
    assert capsys.readouterr().err == "stopped; run again to continue\n"


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), DivergedError("loss is nan")])
def test_what_is_no_mistake_of_the_user_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        answer(raising(error))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--what"], "unrecognized arguments: --what"),
        (["--count", "many"], "argument --count: invalid int value: 'many'"),
        (["--count"], "expected one argument"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_the_help(capsys, arguments, words):
    parser = Parser(prog="python -m eggs")
    parser.add_argument("--count", type=int)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(arguments)
    out, line = capsys.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert line.startswith("error: ")
    assert words in line
    assert line.endswith("; see python -m eggs --help\n")
    assert line.count("\n") == 1


def test_a_folder_that_cannot_be_made_is_refused_and_none_is_made(tmp_path):
    (tmp_path / "file").write_text("kept")
    for folder in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(
            ConfigError, match=r"--out: .* cannot be written \(.*file is a file\); give a folder that can be"
        ):
            refuse_unwritable("--out", folder)
    refuse_unwritable("--out", tmp_path / "new" / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_asking_for_help_is_no_mistake(capsys):
    with pytest.raises(SystemExit) as ended:
        Parser(prog="python -m eggs", description="Finds eggs.").parse_args(["--help"])
    assert ended.value.code == 0
    assert "Finds eggs." in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/runs/eggs/trials/007/results.jsonl"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line_and_code_1_wherever_it_was_met(capsys, error):
    wrapped = RuntimeError("a callback failed")
    wrapped.__cause__ = error
    for met in (error, wrapped):
        assert answer(raising(met)) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: the disk is full (")
        assert told.endswith("); free some space, and resume\n")
        assert told.count("\n") == 1


def test_what_is_no_full_disk_is_not_hidden(capsys):
    with pytest.raises(OSError, match="denied"):
        answer(raising(OSError(errno.EACCES, "permission denied")))

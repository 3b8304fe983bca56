"""--task file promises: any file of pairs can be learned, what is tested is never trained on, and
what a line, a question or a file has wrong is said. --export writes such files."""

import math

import pytest
import torch

import train
from gcd import GCD
from task import held_out
from translations.file import File


@pytest.fixture
def doubles(tmp_path):
    """Integers and their doubles, one of which has two solutions; and three lines of no pair."""
    path = tmp_path / "doubles.txt"
    lines = [f"+ {' '.join(str(n))}\t+ {' '.join(str(2 * n))}" for n in range(1, 600)]
    path.write_text("\n".join([*lines, "+ 7\t- 7", "", "+ 8", "+ 8\t+ 1 6\t+ 1"]) + "\n")
    return str(path)


def write(path, *pairs):
    path.write_text("".join(f"{problem}\t{solution}\n" for problem, solution in pairs))
    return str(path)


def test_vocabularies_and_lengths_are_the_files(doubles, capsys):
    task = File(train_data=doubles)
    assert task.source.words[3:] == sorted({*"+0123456789"})
    assert task.target.words[3:] == sorted({*"+-0123456789"})
    assert (task.src_len, task.tgt_len) == (4, 6)  # + 5 9 9, and + 1 1 9 8 <eos>
    assert f"{doubles}: 600 pairs; 3 other lines are skipped" in capsys.readouterr().out


def test_the_format_of_int2int_is_read(tmp_path):
    path = write(tmp_path / "pairs.txt", *[("V2 + 1 24 + 16", f"+ {n}") for n in range(2)],
                 *[(f"V2 + {n} + 3", "- 1") for n in range(50)])
    problem = File(train_data=path).read("V2 + 1 24 + 16")
    assert File(train_data=path).show(problem) == "V2 + 1 24 + 16"


def test_no_tested_problem_is_trained_on(doubles):
    task = File(train_data=doubles, test_size=1000)
    tested = {task.show(row) for row in task.tests["new problems"].tolist()}
    problems, solutions = task.draw(5000, torch.Generator().manual_seed(0))
    trained = {task.show(row) for row in problems.tolist()}
    assert 30 < len(tested) < 90 and not tested & trained
    assert len(tested | trained) >= 595  # of 599; nearly all of the others were drawn
    for problem, solution in zip(problems.tolist(), solutions.tolist()):
        a, b = (int("".join(v.text(row).split())) for v, row in
                ((task.source, problem), (task.target, solution)))
        assert b == 2 * a or (a, b) == (7, -7)


def test_a_second_file_is_the_test(doubles, tmp_path, capsys):
    other = write(tmp_path / "test.txt", ("+ 1 2", "+ 2 4"), ("+ x", "+ 1"), ("+ 1 0 0 0", "+ 0"),
                  ("+ 1 2", "+ 2 5"))
    task = File(train_data=doubles, test_data=other)
    (name, rows), = task.tests.items()
    assert [task.show(row) for row in rows.tolist()] == ["+ 1 2"]
    assert "2 problems skipped: they are longer than those of" in capsys.readouterr().out
    problems, _ = task.draw(5000, torch.Generator().manual_seed(0))
    assert "+ 1 2" not in {task.show(row) for row in problems.tolist()}
    assert task.judge(task.read("+ 1 2"), "+ 2 5") == ("+ 2 5", True)


def test_right_is_what_the_file_says(doubles):
    task = File(train_data=doubles)
    assert task.judge(task.read("+ 7"), "+ 1 4") == ("+ 1 4", True)
    assert task.judge(task.read("+ 7"), "- 7") == ("- 7", True)  # it has two solutions
    assert task.judge(task.read("+ 7"), "+ 7") == ("+ 7", False)
    assert task.judge(task.read("+ 9 9 9"), "+ 1 9 9 8") == ("+ 1 9 9 8", None)  # who knows?


@pytest.mark.parametrize("question", ["", "+ seven", "+ 1 2 3 4", "12"])
def test_a_question_in_other_words_is_refused(doubles, question):
    with pytest.raises(ValueError, match="a problem is up to 4 words"):
        File(train_data=doubles).read(question)


@pytest.mark.parametrize("text, line", [
    ("", "holds no pairs"), ("no tab\n", "holds no pairs"), ("a pair\thas\n", "no problem to test"),
])
def test_a_file_of_no_use_is_one_line(tmp_path, capsys, text, line):
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    for flags in [["--train-data", str(path)], ["--train-data", str(tmp_path / "none.txt")], []]:
        with pytest.raises(SystemExit) as end:
            train.main(["--task", "file", "--out", str(tmp_path / "run"), *flags])
        error = capsys.readouterr().err
        assert end.value.code == 2 and error.count("\n") == 1
        assert (line if str(path) in flags else "none.txt" if flags else "--train-data") in error


def test_what_a_task_exports_a_file_learns(tmp_path, capsys):
    """Pairs of integers up to 15, in words; a report by lengths; and questions."""
    path, out = tmp_path / "gcd.txt", tmp_path / "run"
    train.main(f"--task gcd --base 2 --max-int 15 --export {path} --examples 4000".split())
    lines = path.read_text().splitlines()
    assert len(lines) == 4000
    for line in lines:
        (a, b), gcd = (line.split("\t")[i].replace(" ", "").split("+")[1:] for i in (0, 1))
        assert math.gcd(int(a, 2), int(b, 2)) == int(*gcd, 2)

    train.main(f"--task file --train-data {path} --out {out} --device cpu --dim 64 --epochs 1 "
               "--epoch-size 12000 --batch-size 64 --lr 3e-3 --warmup 50".split())
    report = capsys.readouterr().out
    assert float(report.partition("new problems: ")[2].partition("%")[0]) > 55
    assert "By the length of the problem:" in report
    train.main(f"--task file --train-data {path} --out {out} --device cpu --ask".split()
               + [lines[0].partition("\t")[0]])
    assert "the model says, best first:\n  " in capsys.readouterr().out


def test_exported_examples_are_those_of_training(tmp_path):
    path = tmp_path / "pairs.txt"
    train.main(f"--task gcd --base 10 --export {path} --examples 500 --seed 5".split())
    problems = [line.partition("\t")[0] for line in path.read_text().splitlines()]
    pairs = [[int(n) for n in text.replace(" ", "").split("+")[1:]] for text in problems]
    assert len(pairs) == 500 and not held_out(GCD().identity(torch.tensor(pairs))).any()

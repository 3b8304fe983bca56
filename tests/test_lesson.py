"""guide/lesson.py promises: it runs from top to bottom, and the models that it loads are there."""

import os
import subprocess
import sys
from pathlib import Path

import train

ROOT = Path(train.__file__).parent
LESSON = ROOT / "guide" / "lesson.py"


def test_it_runs_from_top_to_bottom(tmp_path):
    """With less training, and fewer problems tested. Pictures go to tmp_path."""
    text = LESSON.read_text()
    assert text.count("range(1, 601)") == 1 and text.count("% 200") == 1
    text = text.replace("range(1, 601)", "range(1, 61)").replace("% 200", "% 20")
    text = text.replace("GCD(base=10, test_size=2000)", "GCD(base=10, test_size=200)")
    text = text.replace("plot.deciding(task, model)", "plot.deciding(task, model, 500)")
    for name in ("attention.png", "deciding.png"):
        text = text.replace(f'"{name}"', repr(str(tmp_path / name)))
    result = subprocess.run([sys.executable, "-c", text], cwd=ROOT, text=True, timeout=120,
                            capture_output=True, env=os.environ | {"PYTHONPATH": ""})
    assert result.returncode == 0, result.stderr
    out = result.stdout
    assert "gcd(10, 32) = 2; the model says, best first:\n  right  2" in out
    assert "GCD 10: it says 10  (100% of the time)  right" in out
    shares = [float(line.split(":")[1].split("%")[0]) for line in out.splitlines()
              if line.startswith("the digit of")]
    assert shares[0] < 1 and shares[1] < 1 and shares[-1] > 20 and shares[-2] > 5
    accuracy = {line.split()[0]: float(line.split()[1].rstrip("%")) for line in out.splitlines()
                if line.startswith(("semicircle ", "abs-laplace "))}
    assert accuracy["semicircle"] > accuracy["abs-laplace"] + 10


def test_its_cells_are_marked():
    cells = [line for line in LESSON.read_text().splitlines() if line.startswith("# %%")]
    assert len(cells) >= 10 and all(len(line) > 10 for line in cells)

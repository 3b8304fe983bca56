"""What a docstring shows after >>> is what Python says."""

import doctest
import importlib
from pathlib import Path

import pytest

import train

ROOT = Path(train.__file__).parent
FILES = [path.relative_to(ROOT) for pattern in ("*.py", "translations/*.py")
         for path in sorted(ROOT.glob(pattern)) if ">>> " in path.read_text()]


@pytest.mark.parametrize("name", [".".join(path.with_suffix("").parts) for path in FILES])
def test_the_examples_are_real(name):
    assert len(FILES) > 20
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried and not failed

# %% [markdown]
# # A lesson: what does a transformer learn, when it learns the GCD?
#
# Run the cells one after another (VS Code, Spyder; Jupyter with jupytext), or all of them at once:
# `python guide/lesson.py`. It takes a minute or two. Before you run a cell, guess what it prints.

# %% I. Generate: pairs of integers up to a million, and their GCDs, as many as one likes
import importlib.util
import sys

import torch
from torch.nn.functional import cross_entropy

sys.path[:0] = [".", ".."]  # the folder of train.py, from here or from guide/
import train
from gcd import GCD
from model import Transformer
from task import by_test
from tokenizers import Integers

task = GCD(base=10, test_size=2000)
generator = torch.Generator().manual_seed(1)
pairs, gcds = task.draw(5, generator)
print(torch.cat([pairs, gcds], dim=1))

# %% II. Represent: all that the model sees are words, and not even these, but their numbers
source, target = task.batch(3, generator)
for problem, solution in zip(source, target):
    print(task.source.text(problem), " => ", task.target.text(solution))
    print("   ", problem.tolist(), " => ", solution.tolist())

# %% The same integer in other bases. In which of them does one see that 28 is a multiple of 4?
for base in (2, 10, 31):
    print(f"28 in base {base}:", Integers(base).write(28))

# %% III. Train: half a minute of it. What is the model right about, when it is right on 60%?
model = Transformer(len(task.source), len(task.target), task.src_len, task.tgt_len, dim=64, heads=4,
                    enc_layers=1, dec_layers=1, pad=0, bos=1, eos=2)
adam = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(1, 601):
    source, target = task.batch(256, generator)
    logits = model(source, target[:, :-1])
    loss = cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0)
    adam.zero_grad()
    loss.backward()
    adam.step()
    if step % 200 == 0:
        print(f"{256 * step:,} examples, loss {loss:.3f}:", task.headline(task.evaluate(model)))

# %% Load a model that was trained for longer, and comes with the code


def load(command):
    """The task and the trained model of a command of train.py."""
    args, task, checkpoint = train.read_flags([*command.split(), "--eval-only", "--device", "cpu"])
    return task, train.make_model(args, task, checkpoint)


task, model = load("--task gcd --base 10 --test-size 2000")
print(task.ask("10 32", model, beam=3))

# %% Ask it more. Which pairs does it get wrong? Try to find a rule before the next cell.
for pair in ("12 18", "30 45", "100 75", "77 121", "123456 7890", "640 960"):
    print(task.ask(pair, model).replace("; the model says, best first:\n", ":"))

# %% Find the rules: for pairs of GCD k, what does it answer most often, and how often?
pairs = task.stratified
gcds = torch.gcd(*pairs.T)
answers = task.target.decode(task.translate(model, pairs)[:, 0])
for k in range(1, 21):
    f = answers[gcds == k].mode().values.item()
    share = (answers[gcds == k] == f).double().mean().item()
    print(f"GCD {k:>2}: it says {f:>2}  ({share:.0%} of the time){'  right' if f == k else ''}")

# %% Which digits decide? Draw one digit of the first number anew: how many answers change?
pairs = task.tests["natural"]
pairs = pairs[(pairs >= 100_000).all(dim=1) & (pairs < 1_000_000).all(dim=1)]  # six digits each
before = task.translate(model, pairs)[:, 0]
for place in range(5, -1, -1):
    digit = pairs[:, 0] // 10**place % 10
    new = torch.randint(int(place == 5), 10, (len(pairs),), generator=generator)  # the first is not 0
    changed = pairs.clone()
    changed[:, 0] += (new - digit) * 10**place
    after = task.translate(model, changed)[:, 0]
    share = (before != after).any(dim=1).double().mean().item()
    print(f"the digit of 10^{place}: {share:6.1%} of the answers change", "#" * round(100 * share))

# %% How many of the last digits show whether 4 divides a number? And 8, and 3? Exercise 15 asks why
for k in (2, 4, 8, 16, 5, 25, 3, 7):
    digits = next((d for d in range(1, 7) if 10**d % k == 0), None)
    print(f"multiples of {k:>2}: " + ("no number of last digits shows them" if digits is None
                                      else f"the last {digits} digits show them"))

# %% Another problem, the same kind of model: the eigenvalues of a matrix
task, model = load("--task eigen --train-dist semicircle --test-size 500")
print(task.ask("[[2, 1, 0], [1, 3, -4], [0, -4, 5]]", model))

# %% It was trained on one distribution of eigenvalues. On which of the others will it be right?
for name, accuracy in by_test(task.evaluate(model)).items():
    print(f"{name:<20}{accuracy:6.1%}", "#" * round(50 * accuracy))

# %% Draw, where matplotlib is installed: which digits decide; where it looks while it says 25
if importlib.util.find_spec("matplotlib"):
    import plot
    task, model = load("--task gcd --base 10")
    plot.save(plot.deciding(task, model), "deciding.png")
    plot.save(plot.attention(task, model, "123475 567850"), "attention.png")

"""Makes the fixtures of this folder: what the PyTorch reference says of each recipe.

    python tests/golden/make_golden.py [RECIPE ...]

Needs the versions of torch and transformers that the extra `parity` names. A fixture holds
expectations only; the weights are drawn again from the recipe's seed by whoever reads it.
`hf_greedy_text_only.json` is not made here: it holds the greedy frames of csm-1b from transformers'
own test suite.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

from reference import expected, scenes
from reference.checkpoint import write_checkpoint
from reference.recipes import RECIPES, Recipe
from reference.runner import Reference

# A greedy run is a fixture only if no code in it was chosen by less than this part of the range of
# the logits: float32 sums in another order change logits by about a millionth of it.
CLEAR = 8e-6


def make(recipe: Recipe) -> Path:
    """Write the fixture of one recipe; returns its path."""
    with tempfile.TemporaryDirectory() as folder:
        reference = Reference(write_checkpoint(recipe, Path(folder)))
        wanted = expected.compute(reference, recipe)
        for name, prompt in scenes.PROMPTS.items():
            codes, margin = reference.greedy(prompt(recipe), recipe.greedy_frames)
            print(f"{recipe.name}, greedy after {name}: clear by {margin:.1e}", flush=True)
            if margin < CLEAR:
                raise SystemExit(f"less than {CLEAR:.0e}: give the recipe another seed")
            wanted.greedy[name] = codes
    return expected.save(wanted, recipe)


def main() -> None:
    """Make the fixtures of the recipes named on the command line, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=", ".join(RECIPES))
    for name in parser.parse_args().recipes or RECIPES:
        path = make(RECIPES[name])
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()

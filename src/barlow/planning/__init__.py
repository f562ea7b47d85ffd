"""From a recipe with `auto` in it to everything that a run is made of.

`facts.py` looks at the images and at the machine. `choices.py` has a pure function for each `auto`, and `plan.py` the
recipe with all of them replaced; `reasons.py` says why, in a line each. `preparation.py` puts it all together, and
`trial.py` tries a first step, so that what cannot work is refused before training.
"""

"""The folder of a run: what is in it, who the run is, how it begins or goes on, and what it hands out at its end.

`run.py` knows the folder and `identity.py` who the run is (`run.json`). `beginning.py` begins a run or goes on with
it. `finishing.py` makes the encoder that is handed out. `ran.py` and `same_recipe.py` answer questions about a run
that has been.
"""

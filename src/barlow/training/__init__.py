"""What happens at every step of a run, and beside the steps.

`train.py` is the loop. `learner.py` is everything that a step changes, `assembly.py` builds it, and
`global_gradient.py` has the gradient of the global batch's loss. `watchers.py` are called between the steps: for
example those that write the log and the checkpoints, the live line (`live.py`), and the monitor (`monitor.py`).
"""

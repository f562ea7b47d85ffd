"""What is to be known of a set of images before training: `barlow check`.

`checking.py` does the work, and `set_report.py` holds what was found, as plain data. `check_report.py` says it in the
terminal, `alike.py` what it says of images that are alike.
"""

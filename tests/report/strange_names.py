"""Names that a stranger would choose for folders and files."""

HOSTILE = "<img src=x onerror=alert(1)>"
"""The name of a class."""

LONG = "n" * 140
"""Two of these are the folders of a file, whose path then has 300 characters."""

"""Methods: which networks see which views, and which of their outputs an objective compares."""

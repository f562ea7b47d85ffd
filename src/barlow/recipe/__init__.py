"""Recipes are data: a complete description of a run, checked before anything starts.

A recipe is YAML with the sections of `schema.Recipe`. Those that ship lie in `barlow/recipes/`: the small ones, and in
a folder for each set of images the published ones. The files of this package are:

schema      what a recipe may say, and the check
sections    the sections with fixed keys: data, encoder, optim, schedule, train
changes     dotted keys, `{"optim.kind": "sgd"}`, put into a recipe
files       reading and writing YAML
flags       the short flags of the command line and of `pretrain`, each written down once
request     from what a user asks for to a recipe
messages    one line for each thing that can be wrong
"""

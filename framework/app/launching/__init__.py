"""How the cells of a sweep run: a process each (the default) or all in one; what a sweep leaves; how one is resumed.

Hydra finds the classes of this package through `hydra_plugins/servelab.py`.
"""

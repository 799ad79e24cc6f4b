"""Code that runs in processes of its own, never in the notebook's: the zygote, the keeper of a family, the shell in which a model's code runs.

It needs the standard library, and the shell IPython; nothing else of this project. Only the small pure files are imported elsewhere.
"""

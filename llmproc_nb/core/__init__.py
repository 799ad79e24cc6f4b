"""The pure room: values, the tree, the loop. Standard library and msgspec only; no I/O, no SDK, no IPython, no pandas.

A file imports only from those above it:

    errors · usage · message · dialog · provider (door) · event · log · tool · program · limiter · call · process · machine
"""

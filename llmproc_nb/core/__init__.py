"""The pure room: values, the tree, the loop. Standard library and msgspec only; no SDK, no IPython, no pandas, no files.

A file imports only from those before it here (a contract in pyproject.toml holds it to that):

    errors · clock · owner · usage · message · visible     what everything is said in
    dialog · provider (door) · wire · limiter              the tree, and the door to a model
    tool · program · event · line · log (door)             what may be called, declared, happen and be kept
    declaration · difference · record                      what a log tells
    result · call · ask · toolrun · loop                   one call, from a message to a natural stop
    process · machine                                      what a person holds, and what it runs on
"""

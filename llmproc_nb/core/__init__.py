"""The pure room: values, the tree, the loop. Standard library and msgspec only; no SDK, no IPython, no pandas, no files.

A file imports only from those before it here (a contract in pyproject.toml holds it to that):

    errors · field · clock · owner · usage · message · pattern · visible     what everything is said in
    dialog · provider (door) · tail · fault · sse · wire · limiter · fan     the tree, and the door to a model
    tool · longtext (door) · fd · fdtable · reading · label · address    what may be called, long texts, places in a dialog
    sandbox (door) · manual · form · gate · program · approval (door)    what is declared, and who may do what
    event · line · log (door)                                        what happens and is kept
    declaration · difference · record · window                       what a log tells
    result · call · server · branch · state · waking · sandboxed     calls, branches, code and its state
    output · syscall · link · said · paging                          what a process does to itself
    standing · budget · ask · compaction · told · decision · toolrun · loop   one call, from a message to a natural stop
    doors · process · machine                                        what a person holds, and what it runs on
"""

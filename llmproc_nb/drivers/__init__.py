"""What touches the world: model APIs, files, the log on disk.

Each driver imports core only, none imports another; table.py finds them by name.
"""

"""Typed schemas: a Tool from any Python callable, and the schema and reader of a typed answer. pydantic is imported on first use."""

from llmproc_nb.drivers.schema.answer import schema_of
from llmproc_nb.drivers.schema.function import injected, tool

__all__ = ["injected", "schema_of", "tool"]

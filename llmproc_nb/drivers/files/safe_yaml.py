"""The YAML loader: PyYAML's safe one with bounds on depth and size, keys given twice remembered, and dates left as text.

Imported on first use only, because it loads PyYAML.
"""

from __future__ import annotations

from typing import Any, ClassVar

import yaml

from llmproc_nb.drivers.files.table import MAX_DEPTH, MAX_NODES

_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class TooBig(Exception):
    """A file beyond a bound; `line` and `column` count from 1."""

    def __init__(self, found: str, right: str, mark: Any) -> None:
        super().__init__(found)
        self.found, self.right, self.line, self.column = found, right, mark.line + 1, mark.column + 1


class Loader(yaml.SafeLoader):
    """Reads one document. `repeated` lists (key, line) of every key that stands twice in its mapping."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[tuple[str, int]] = []
        self._depth = self._nodes = 0
        self._checked: set[int] = set()

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, counted: a file is refused while it is read, before its aliases can be unfolded."""
        reader: Any = self
        mark = reader.peek_event().start_mark
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH:
            raise TooBig("lists or mappings nested too deep", f"at most {MAX_DEPTH} levels are read", mark)
        if self._nodes > MAX_NODES:
            raise TooBig("too many values", f"a program has at most {MAX_NODES:,}", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_document(self, node: Any) -> Any:
        """The document's data, after its size with every alias unfolded has been checked."""
        self._unfolded(node, {}, set())
        return super().construct_document(node)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode) and id(node) not in self._checked:
            self._checked.add(id(node))
            self._remember_repeated(node)
        return super().construct_mapping(node, deep=deep)

    def _remember_repeated(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    self.repeated.append((key.value, key.start_mark.line + 1))
                seen.add(key.value)

    def _unfolded(self, node: Any, sizes: dict[int, int], open_nodes: set[int]) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise TooBig("an alias that contains itself", "a program's values are finite", node.start_mark)
        open_nodes.add(id(node))
        children = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        size = 1
        for child in children:
            size += self._unfolded(child, sizes, open_nodes)
            if size > MAX_NODES:
                raise TooBig("aliases that unfold to too many values", f"a program has at most {MAX_NODES:,}", node.start_mark)
        open_nodes.discard(id(node))
        sizes[id(node)] = size
        return size

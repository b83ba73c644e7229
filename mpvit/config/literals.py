"""A config as mmengine writes it, read as data: nothing in it is executed."""

import ast
from typing import Any

#: What reading something else raises.
NOT_DATA = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)


def literal_entries(text: str) -> dict[str, Any]:
    """Assignments of plain values, as mmengine writes a config, without running them.

    Raises:
        ValueError: There is something else.
        SyntaxError: It is no Python.
    """
    entries = {}
    for node in ast.parse(text).body:
        if not (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(target := node.targets[0], ast.Name)
        ):
            raise ValueError(f'line {node.lineno} is more than a name and its value')
        entries[target.id] = ast.literal_eval(_Plain().visit(node.value))
    return entries


class _Plain(ast.NodeTransformer):
    """Writes ``dict(a=1)`` as ``{'a': 1}``, and the names of floats that are no numbers as such."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        names = [keyword.arg for keyword in node.keywords]
        if node.args or None in names or ast.unparse(node.func) != 'dict':
            return node  # which is no literal
        return ast.Dict([*map(ast.Constant, names)], [keyword.value for keyword in node.keywords])

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(float(node.id)) if node.id in ('inf', 'nan') else node

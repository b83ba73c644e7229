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
        entries[target.id] = _value(node.value)
    return entries


def _value(node: ast.expr) -> Any:
    """A plain value, with ``dict(a=1)`` for a dict and the names of floats that are no numbers."""
    if isinstance(node, ast.Call) and not node.args and _name(node.func) == 'dict':
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError('a dict is unpacked into another')
        return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_value(k): _value(v) for k, v in zip(node.keys, node.values, strict=True) if k}
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(child) for child in node.elts)
    if _name(node) in ('inf', 'nan'):
        return float(_name(node))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    return ast.literal_eval(node)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ''

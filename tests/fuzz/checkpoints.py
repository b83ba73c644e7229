"""Checkpoints that are damaged, and such that would run code."""

import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mpvit.checkpoints.reading import read

#: Where the payloads write; the sandbox looks for it in the folder of the case.
CANARY = 'canary'
Content = dict[str, Any]


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def _payload(rng: random.Random) -> Payload:
    return rng.choice(
        [
            Payload(exec, f'open({CANARY!r}, "w").close()'),
            Payload(os.system, f'touch {CANARY}'),
            Payload(os.mkdir, CANARY),
            Payload(getattr, Payload(__import__, 'os'), 'getcwd'),
        ]
    )


def _weights(content: Content) -> dict[str, torch.Tensor]:
    weights = content.get('state_dict', content.get('model'))
    return weights if isinstance(weights, dict) else content


def _tensor(change: Callable[[random.Random, torch.Tensor], Any]) -> Callable[..., None]:
    """Change one tensor of floats that the detector uses."""

    def edit(rng: random.Random, content: Content) -> None:
        weights = _weights(content)
        names = [n for n, t in weights.items() if torch.is_tensor(t) and t.is_floating_point()]
        name = rng.choice(sorted(names))
        weights[name] = change(rng, weights[name])

    return edit


def _all(change: Callable[[torch.Tensor], Any]) -> Callable[..., None]:
    def edit(rng: random.Random, content: Content) -> None:
        weights = _weights(content)
        for name, value in weights.items():
            if torch.is_tensor(value):
                weights[name] = change(value)

    return edit


def _with(number: float) -> Callable[..., Any]:
    def change(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[rng.randrange(tensor.numel())] = number
        return tensor

    return change


def _drop(rng: random.Random, content: Content) -> None:
    weights = _weights(content)
    del weights[rng.choice(sorted(map(str, weights)))]


def _part(value: Callable[[random.Random], Any]) -> Callable[..., None]:
    """Put something else in the place of a part of the checkpoint, or of its metadata."""

    def edit(rng: random.Random, content: Content) -> None:
        holder = content
        meta = content.get('meta')
        if isinstance(meta, dict) and meta and rng.random() < 0.6:
            holder = meta
        holder[rng.choice(sorted(map(str, holder)))] = value(rng)

    return edit


def _config(text: str) -> Callable[..., None]:
    def edit(rng: random.Random, content: Content) -> None:
        meta = content.setdefault('meta', {})
        if isinstance(meta, dict):
            meta['cfg'] = text if rng.random() < 0.5 else f'{meta.get("cfg", "")}\n{text}'

    return edit


def _itself(rng: random.Random, content: Content) -> None:
    content['meta'] = content


_CODE = f'open({CANARY!r}, "w").close()'
#: Changes after which weights are no weights: using them must be refused, not give a result.
UNUSABLE = {
    'nan': _tensor(_with(float('nan'))),
    'infinite': _tensor(_with(float('-inf'))),
    'all nan': _all(lambda t: torch.full_like(t, float('nan')) if t.is_floating_point() else t),
    'complex': _tensor(lambda rng, t: t.to(torch.complex64)),
    'truths': _tensor(lambda rng, t: t > 0),
    'bytes': _tensor(lambda rng, t: t.to(torch.int8)),
    'shape': _tensor(lambda rng, t: t.new_zeros((*t.shape, 2))),
    'missing': _drop,
    'no weights': lambda rng, content: _weights(content).clear(),
    'lists': _tensor(lambda rng, t: t.flatten().tolist()),
}
CHANGES = UNUSABLE | {
    'doubles': _all(lambda t: t.double()),
    'halves': _all(lambda t: t.half() if t.is_floating_point() else t),
    'huge view': _tensor(lambda rng, t: torch.zeros(1).expand(2**36)),
    'extra': lambda rng, content: _weights(content).update({'no.such.layer': torch.zeros(3)}),
    'number as a name': lambda rng, content: _weights(content).update({7: torch.zeros(3)}),
    'no tensor': _part(lambda rng: rng.choice([None, [], {}, 'x', -1, 10**30, float('nan')])),
    'payload': _part(_payload),
    'config of code': _config(f'model = dict(type={_CODE})'),
    'config that imports': _config("custom_imports = dict(imports=['antigravity'])\n"),
    'config of nothing': _config(''),
    'config nested': _config('model = ' + '[' * 3000 + ']' * 3000),
    'config of another type': _config("model = dict(type='os.system')"),
    'itself': _itself,
}


def spoil_checkpoint(rng: random.Random, path: Path, names: dict[str, Any] = CHANGES) -> None:
    """Change what a checkpoint holds."""
    content = read(path)
    names[rng.choice(sorted(names))](rng, content)
    torch.save(content, path)


def no_checkpoint(rng: random.Random, path: Path) -> None:
    """Put something else in the place of a checkpoint."""
    payload = _payload(rng)
    way = rng.randrange(7)
    if way == 0:
        path.write_bytes(pickle.dumps(payload, protocol=rng.choice([0, 2, 4])))
    elif way == 1:
        torch.save(payload, path)
    elif way == 2:
        torch.save({'state_dict': {'w': payload}}, path, _use_new_zipfile_serialization=False)
    elif way == 3:
        torch.save(rng.choice([torch.zeros(3), [], None, 'text', {}]), path)
    elif way == 4:
        path.write_bytes(rng.choice([b'PK\x05\x06' + bytes(18), b'<html>', b'\x80', b'\x00' * 99]))
    elif way == 5:
        key: tuple[Any, ...] = ()
        for _ in range(40):
            key = (key, key)
        torch.save({}, path, _use_new_zipfile_serialization=False)
        pickled = pickle.dumps({}, 2)[:-1] + pickle.dumps(key, 2)[2:-1] + b'K\x01s.'
        path.write_bytes(path.read_bytes().replace(pickle.dumps({}, 2), pickled))
    else:
        header = rng.choice(
            [b'{}', b'{"a":', b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}']
        )
        size = rng.choice([len(header), 2**40, 0])
        path.write_bytes(size.to_bytes(8, 'little') + header + bytes(4))


def spoil_onnx(rng: random.Random, path: Path) -> None:
    """Change what an exported detector says of itself, its weights, its inputs or what it gives."""
    import onnx

    model = onnx.load(path)
    way = rng.randrange(6)
    if way > 3:
        _give_something_else(rng, model.graph)
    elif way < 2:
        rng.choice(model.metadata_props).value = rng.choice(_FACTS)
    elif way == 2:
        model.graph.input[rng.randrange(2)].name += 'x'
    else:
        floats = [w for w in model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT]
        weight = rng.choice(floats)
        weight.raw_data = b'\xff' * len(weight.raw_data)  # NaN
    onnx.save(model, path)


def _give_something_else(rng: random.Random, graph: Any) -> None:
    """Leave out an output, exchange two, or give the same whatever the image is."""
    import onnx

    one, other = rng.sample(range(len(graph.output)), 2)
    way = rng.randrange(3)
    if way == 0:
        del graph.output[one]
    elif way == 1:
        first, second = graph.output[one].name, graph.output[other].name
        graph.output[one].name, graph.output[other].name = second, first
        for node in graph.node:
            names = {first: second, second: first}
            node.output[:] = [names.get(name, name) for name in node.output]
            node.input[:] = [names.get(name, name) for name in node.input]
    else:
        name = graph.output[one].name
        value = np.array(rng.choice(_GIVEN))
        for node in graph.node:
            node.output[:] = [f'{n}_before' if n == name else n for n in node.output]
        graph.initializer.append(onnx.numpy_helper.from_array(value, f'{name}_given'))
        graph.node.append(onnx.helper.make_node('Identity', [f'{name}_given'], [name]))
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.output[one].CopyFrom(onnx.helper.make_tensor_value_info(name, kind, None))


_GIVEN: list[Any] = [[[99]], [[-1]], [[0.5]], [[[0.0, 0.0, 9.0, 9.0]]], [[1e300]], 7, [], [[True]]]
_FACTS = ['', 'null', '[]', '{}', '[1, 2]', '"x"', '["a", "b"]', 'no json', '[' * 100_000, '1e999']

"""Deterministic weights and inputs for the parity fixtures.

Everything is a pure function of (official parameter name, shape, seed), so the
reference side and the re-implementation side can build identical models without
shipping any weights.  Only numpy is needed.

    fill(name, shape, seed)                 -> ndarray for one official key
    fill_state_dict(keys, aliases, seed)    -> {key: ndarray} with shared tensors tied
    image(shape, seed)                      -> float32 CHW (or NCHW) pseudo image
    boxes(n, hw, seed) / labels(n, seed)    -> training targets of one image
    checksum(arr)                           -> short fingerprint used in README.md

Generator: numpy.random.default_rng((crc32(utf8 text) + seed) mod 2**32); values are
drawn in C order as float64 and cast to float32 at the very end.
"""

import zlib

import numpy as np

# The 80 category ids which COCO really uses (out of 1..90).
UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
COCO_IDS = tuple(i for i in range(1, 91) if i not in UNUSED)


def _rng(text, seed):
    return np.random.default_rng((zlib.crc32(text.encode('utf-8')) + int(seed)) % 2**32)


def _zigzag(n):
    """+1, -1, +1, ... of length n."""
    return np.where(np.arange(n) % 2 == 0, 1.0, -1.0)


def fill(name, shape, seed):
    """Value of the official tensor ``name`` of shape ``shape`` for ``seed``.

    Rules, first match wins (n = standard normal array, drawn first):

    =============================================== =====================================
    key                                              value
    =============================================== =====================================
    *.num_batches_tracked                            int64 zeros
    *.running_mean                                   0.1 n
    *.running_var                                    U(0.5, 1.5)   (drawn instead of n)
    *.sampling_offsets.bias                          2 n
    class_embed.<i>.bias                             -2 + 0.5 n
    bbox_embed.0.layers.2.bias                       0.1 n + (0, 0, -1, -1)
    bbox_embed.6.layers.2.bias                       0.1 n + (0, 0, +1, +1)
    bbox_embed.0.layers.2.weight                     2 n / sqrt(fan_in)
    bbox_embed.<i>.layers.2.weight, i >= 1           0.5 n / sqrt(fan_in)
    transformer.pos_trans.weight                     4 n / sqrt(fan_in) * exp(-(j mod 128)/16)
      (j = input column)
    transformer.enc_output.bias                      0.1 n - 0.3 z          (z = +1,-1,+1,..)
    class_embed.6.weight                             n / 16, then row 0 += 0.02 z
    transformer.reference_points.weight              1.5 n / sqrt(fan_in)
    query_embed.weight, transformer.level_embed      n
    1-D *.weight (any norm scale)                    1 + 0.1 n
    *.bias, *.in_proj_bias                           0.1 n
    conv position encoding (shape (C, 1, k, k) and    0.2 n / k
      'cpe' in the name; NOT the 'crpe' convs)
    last linear of a backbone residual branch        0.5 n / sqrt(fan_in)
      (names ending in .proj.weight or .fc2.weight and 2-D; also the last 1x1 conv of a
       residual conv branch: .conv3.weight, .InvRes.conv2.conv.weight)
    transformer *.linear2.weight                     0.7 n / sqrt(fan_in), then each row
                                                     minus its own mean
    transformer *.output_proj.weight                 0.5 n / sqrt(fan_in)
    transformer *.self_attn.out_proj.weight          0.3 n / sqrt(fan_in)
    any other tensor with 2+ dims (.weight,          n / sqrt(fan_in),
      .in_proj_weight)                               fan_in = prod(shape[1:])
    everything else (cls_token1 ...)                 0.1 n
    =============================================== =====================================
    """
    shape = tuple(int(s) for s in shape)
    g = _rng(name, seed)
    leaf = name.rsplit('.', 1)[-1]
    if leaf == 'num_batches_tracked':
        return np.zeros(shape, np.int64)
    if leaf == 'running_var':
        return g.uniform(0.5, 1.5, shape).astype(np.float32)
    n = g.standard_normal(shape)
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    if leaf == 'running_mean':
        v = 0.1 * n
    elif name.endswith('sampling_offsets.bias'):
        v = 2.0 * n
    elif name.startswith('class_embed.') and leaf == 'bias':
        v = -2.0 + 0.5 * n
    elif name == 'bbox_embed.0.layers.2.bias':
        v = 0.1 * n + np.array([0.0, 0.0, -1.0, -1.0])
    elif name == 'bbox_embed.6.layers.2.bias':
        v = 0.1 * n + np.array([0.0, 0.0, 1.0, 1.0])
    elif name.startswith('bbox_embed.') and name.endswith('.layers.2.weight'):
        v = (2.0 if name.startswith('bbox_embed.0.') else 0.5) * n / np.sqrt(fan_in)
    elif name == 'transformer.pos_trans.weight':
        v = 4.0 * n / np.sqrt(fan_in) * np.exp(-(np.arange(shape[1]) % 128) / 16.0)
    elif name == 'transformer.enc_output.bias':
        v = 0.1 * n - 0.3 * _zigzag(shape[0])
    elif name == 'class_embed.6.weight':
        v = n / np.sqrt(fan_in)
        v[0] += 0.02 * _zigzag(shape[1])
    elif name == 'transformer.reference_points.weight':
        v = 1.5 * n / np.sqrt(fan_in)
    elif name in ('query_embed.weight', 'transformer.level_embed'):
        v = n
    elif leaf == 'weight' and len(shape) == 1:
        v = 1.0 + 0.1 * n
    elif leaf in ('bias', 'in_proj_bias'):
        v = 0.1 * n
    elif len(shape) == 4 and shape[1] == 1 and 'cpe' in name:
        v = 0.2 * n / shape[2]
    elif (len(shape) == 2 and name.endswith(('.proj.weight', '.fc2.weight'))) or name.endswith(
        ('.conv3.weight', '.InvRes.conv2.conv.weight')
    ):
        v = 0.5 * n / np.sqrt(fan_in)
    elif name.endswith('.linear2.weight'):
        v = 0.7 * n / np.sqrt(fan_in)
        v -= v.mean(-1, keepdims=True)
    elif name.endswith('.output_proj.weight'):
        v = 0.5 * n / np.sqrt(fan_in)
    elif name.endswith('.self_attn.out_proj.weight'):
        v = 0.3 * n / np.sqrt(fan_in)
    elif len(shape) >= 2 and leaf in ('weight', 'in_proj_weight'):
        v = n / np.sqrt(fan_in)
    else:
        v = 0.1 * n
    return np.asarray(v).astype(np.float32)


def fill_state_dict(keys, aliases, seed):
    """``keys``: {name: shape}; ``aliases``: {name: canonical name} (shared tensors)."""
    out = {}
    for name, shape in keys.items():
        out[name] = fill(aliases.get(name, name), shape, seed)
    return out


def image(shape, seed):
    """Pseudo image, roughly zero mean / unit range like a normalised photo.

    ``shape`` is (3, H, W) or (N, 3, H, W) (image i of a batch uses seed + 1000 * i).
    Per channel: 4 plane waves of random direction, 1-6 periods over the image and
    amplitude 0.5, plus 0.5 * white noise.
    """
    shape = tuple(int(s) for s in shape)
    if len(shape) == 4:
        return np.stack([image(shape[1:], seed + 1000 * i) for i in range(shape[0])])
    c, h, w = shape
    g = _rng('image', seed)
    freq = g.uniform(1.0, 6.0, (c, 4))
    ang = g.uniform(0.0, 2 * np.pi, (c, 4))
    phase = g.uniform(0.0, 2 * np.pi, (c, 4))
    noise = g.standard_normal(shape)
    y = (np.arange(h) / h)[:, None]
    x = (np.arange(w) / w)[None, :]
    out = 0.5 * noise
    for i in range(c):
        for k in range(4):
            t = freq[i, k] * (np.cos(ang[i, k]) * x + np.sin(ang[i, k]) * y)
            out[i] += 0.5 * np.sin(2 * np.pi * t + phase[i, k])
    return out.astype(np.float32)


def boxes(n, hw, seed):
    """``n`` ground-truth boxes, absolute xyxy float32 pixels inside an (h, w) image."""
    h, w = hw
    g = _rng('boxes', seed)
    cx, cy = g.uniform(0.2, 0.8, n), g.uniform(0.2, 0.8, n)
    bw, bh = g.uniform(0.08, 0.39, n), g.uniform(0.08, 0.39, n)
    b = np.stack([(cx - bw / 2) * w, (cy - bh / 2) * h, (cx + bw / 2) * w, (cy + bh / 2) * h], -1)
    return b.reshape(n, 4).astype(np.float32)


def labels(n, seed):
    """``n`` COCO category ids (int64)."""
    g = _rng('labels', seed)
    return np.array(COCO_IDS, np.int64)[g.integers(0, len(COCO_IDS), n)]


def checksum(arr):
    a = np.asarray(arr, np.float64)
    return [
        float(a.sum()),
        float(np.abs(a).sum()),
        float(a.reshape(-1)[0]),
        float(a.reshape(-1)[-1]),
    ]

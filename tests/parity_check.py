"""Small helpers to compare a re-implementation with the fixtures (numpy only).

fx = Fixture('detector_mpvit_small.npz')
fx.slice_error('src0', tensor)          # max |diff| / max |reference| of the stored slice
fx.slice_error('A.stage3', tensor, f64=True)
fx.losses('B')                          # {official loss name: unweighted value}
fx.detection_error(0, scores, labels, boxes)
"""

import numpy as np


class Fixture:
    def __init__(self, path):
        self.z = dict(np.load(path))

    def __getitem__(self, key):
        return self.z[key]

    def slice_error(self, key, tensor, f64=False):
        """``tensor``: full array of the shape stored in ``<key>.shape``."""
        a = np.asarray(tensor, np.float64)
        shape = tuple(int(s) for s in self.z[key + '.shape'])
        assert a.shape == shape, f'{key}: shape {a.shape}, expected {shape}'
        sl = a[tuple(slice(None, None, int(s)) for s in self.z[key + '.steps'])]
        ref = self.z[('f64.' if f64 else '') + key + '.slice'].astype(np.float64)
        return float(np.abs(sl - ref).max() / np.abs(ref).max())

    def stats_error(self, key, tensor):
        """Largest deviation of (mean, std, abs-max), relative to the abs-max."""
        a = np.asarray(tensor, np.float64)
        s = np.array([a.mean(), a.std(), np.abs(a).max()])
        ref = self.z[key + '.stats']
        return float(np.abs(s - ref).max() / ref[2])

    def losses(self, tag, f64=False, weighted=False):
        v = self.z[('f64.' if f64 else '') + f'loss.{tag}.values'].astype(np.float64)
        if weighted:
            v = v * self.z[f'loss.{tag}.weights']
        return dict(zip(self.z[f'loss.{tag}.names'].tolist(), v.tolist()))

    def grad_norms(self, pre='grad', f64=False):
        """{official parameter name: gradient norm}; parameters without gradient left out."""
        v = self.z[('f64.' if f64 else '') + pre + '.norms']
        return {k: float(x) for k, x in zip(self.z[pre + '.names'].tolist(), v) if x >= 0}

    def grad_slice_error(self, name, grad, pre='grad', f64=False):
        ref = self.z[('f64.' if f64 else '') + f'{pre}.slice.{name}'].astype(np.float64)
        g = np.asarray(grad, np.float64).reshape(-1)
        g = g[:: max(1, g.size // 64)][:64]
        return float(np.abs(g - ref).max() / np.abs(ref).max())

    def detection_error(self, i, scores, labels, boxes):
        """Matches detections greedily by (label, nearest box) so that equal scores may swap.

        Returns (max score error, max box error in px, number of unmatched references).
        """
        rs, rl, rb = (self.z[f'det{i}.{k}'] for k in ('scores', 'labels', 'boxes'))
        scores, labels, boxes = (np.asarray(t) for t in (scores, labels, boxes))
        free = np.ones(len(scores), bool)
        es = eb = 0.0
        lost = 0
        for s, lab, b in zip(rs, rl, rb):
            cand = np.where(free & (labels == lab) & (np.abs(scores - s) < 1e-3))[0]
            if not len(cand):
                lost += 1
                continue
            d = np.abs(boxes[cand] - b).max(1)
            j = cand[d.argmin()]
            free[j] = False
            es, eb = max(es, abs(float(scores[j] - s))), max(eb, float(d.min()))
        return es, eb, lost

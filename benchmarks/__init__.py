"""Side-by-side measurements: one script a question, `table` for all of them."""

import mpvit.register  # noqa: F401  (mmcv's ops and mmdet can be imported from here on)

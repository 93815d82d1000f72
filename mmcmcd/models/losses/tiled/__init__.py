"""The formulas of :mod:`functional`, tile by tile: exact and flat in memory.

No matrix of all similarities exists, neither in the forward nor in the
backward pass: beside rows of the size of the inputs there are O(B + K)
numbers and a few tiles.

* A softmax over tiles is a running sum, the weighted mean of candidates with
  it another one (attention; Rabe and Staats, 2021; Dao et al., 2022).
* The teacher takes no gradient.  So the gradient of a student row is a
  difference of weighted means and is finished in the forward pass: the
  backward pass multiplies it with a scalar, and recomputes nothing.
* Rows have unit length: similarities are bounded by the scale (the inverse
  temperature), and up to a moderate one exponentials need no maximum
  subtracted.  One exponential then serves rows and columns of InfoNCE alike.
  Sharper softmaxes keep a running maximum (Milakov and Gimelshein, 2018).
"""

from .info_nce import info_nce
from .nce import log_sum_exp, nce
from .soft_cross_entropy import soft_cross_entropy

__all__ = ['info_nce', 'log_sum_exp', 'nce', 'soft_cross_entropy']

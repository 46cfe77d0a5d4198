"""Reflux: transfer learning, knowledge distillation and gated promotion, as one package.

Its code is in the repository's folders ``components`` and ``flows``, which the links in this folder point to.
"""

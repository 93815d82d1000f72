from .zero_label_classifier import ZeroLabelClassifier

__all__ = ['ZeroLabelClassifier']

"""Every trained system against the drawn truth: cases of unseen characters, scores, results and their page."""

from referencenet.evaluation.systems import benchmark_paperdoll

__all__ = ["benchmark_paperdoll"]

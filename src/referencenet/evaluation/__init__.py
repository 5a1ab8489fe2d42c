"""Every trained system against the drawn truth: cases of unseen characters, scores, results and their page."""

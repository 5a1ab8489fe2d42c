"""What a system is (`spec`), and the life that all systems share: files, references, prediction, steps, results."""

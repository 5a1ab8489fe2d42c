"""Data sets in the layouts in which they lie on people's disks, one file each; `index.py` has them by name."""

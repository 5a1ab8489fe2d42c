"""Tables from published names to ours that several systems share, or that are long: one file per layout or system."""

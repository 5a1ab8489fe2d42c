"""Tables of published keys, one file per system or per layout that systems share."""

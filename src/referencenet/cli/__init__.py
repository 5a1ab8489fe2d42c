"""The command line `refnet`: thin, one file per command."""

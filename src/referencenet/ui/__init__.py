"""The web page: `refnet ui`."""

"""One file per published system; `referencenet` itself is their front door."""

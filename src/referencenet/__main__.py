"""`python -m referencenet` is `refnet`; launchers such as `accelerate launch --module referencenet` start it so."""

from referencenet.cli.app import main

if __name__ == "__main__":
    main()

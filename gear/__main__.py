"""`python -m gear` is the command `gear`."""

from gear.cli import main

main()

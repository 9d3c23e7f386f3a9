"""`python -m daemun` is the command `daemun`."""

from daemun.cli import main

main()

"""`python -m cervix_study`."""

from cervix_study.cli import main

main()

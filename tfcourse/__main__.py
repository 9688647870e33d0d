"""`python -m tfcourse` is the command `tfcourse`."""

from tfcourse.cli import main

main()

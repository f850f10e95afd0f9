"""``python -m pyframe`` is the ``pyframe`` command."""

from .cli.main import main

main()

"""``python -m securefl``: the command line."""

from securefl.cli import main

raise SystemExit(main())

"""``python -m securefl.cli``: the command line."""

from securefl.cli import main

raise SystemExit(main())

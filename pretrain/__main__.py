"""``python -m pretrain``."""

from pretrain.cli import main

raise SystemExit(main())

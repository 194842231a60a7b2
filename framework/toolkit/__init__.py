"""Parts that plugins share, one folder per kind. A plugin may stand on them or leave them."""

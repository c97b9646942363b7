"""wise-edge over HTTP: a page and an interface for machines, on one device."""

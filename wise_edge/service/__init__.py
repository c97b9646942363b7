"""wise-edge over HTTP: a page and an HTTP API on one device."""

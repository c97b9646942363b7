"""Images and pages for readers: overlays, contact sheets, charts, HTML."""

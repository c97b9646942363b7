"""Images and pages for people: overlays, contact sheets, charts, HTML."""

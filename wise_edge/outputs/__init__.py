"""What a result is turned into for other programs and for people: COCO JSON, masks, cut-outs, outlines, overlays."""

"""What a query would cost on a device that is not at hand: an estimate from published figures."""

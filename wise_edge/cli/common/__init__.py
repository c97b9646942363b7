"""What all commands share: how help looks, where defaults come from, completion, and the names that options take."""

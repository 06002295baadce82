"""Search over the items that there are now, whatever index holds them."""
